// What was found, the most pressing first; a finding leads to its layer, and a layer to its findings.
import { number } from "../format";
import { is, point, show } from "../state";
import { first, names, open } from "../store";
import type { Finding, Saying } from "../types";

const SPOKEN = ["issue", "failed", "tip"];
const SIGN: Record<string, string> = { issue: "✗", failed: "✗", tip: "!", passed: "✓" };

export function Findings() {
  const index = first.value;
  if (!index) return null;
  const layer = is.layer.value;
  const words = is.search.value.toLowerCase();
  const byId = new Map(index.findings.map((finding) => [finding.id, finding]));
  const of = (saying: Saying): Finding[] => saying.items.flatMap((id) => byId.get(id) ?? []).filter((finding) => concerns(finding, layer));
  const fits = (saying: Saying): boolean => of(saying).some((finding) => `${finding.code} ${finding.says} ${finding.layer ?? ""} ${finding.instrument}`.toLowerCase().includes(words));
  const spoken = index.said.filter(fits);
  const quiet = index.findings.filter((finding) => !SPOKEN.includes(finding.outcome));
  const others = open.value.filter((one) => one.id !== index.id);
  return (
    <section class="findings" aria-label="Findings">
      <h2>
        Findings{others.length > 0 && ` of ${names.value[index.id]}`} <small>{index.verdict}</small>
      </h2>
      {!spoken.length && <p class="quiet">{layer ? `Nothing is said of ${layer}.` : "Nothing asks for your attention."}</p>}
      <ul>
        {spoken.map((saying) => (
          <Entry key={saying.items[0]} saying={saying} findings={of(saying)} alone={layer !== null} />
        ))}
      </ul>
      {others.map((one) => (
        <p class="other-run" key={one.id}>
          <button class="plain link" title="Compare the others with this run, and show its findings" onClick={() => show({ base: one.id })}>{names.value[one.id]}</button> <small>{one.verdict}</small>
        </p>
      ))}
      {quiet.length > 0 && (
        <details>
          <summary class="quiet">{quiet.length} that ask for nothing</summary>
          <ul>
            {quiet.map((finding) => (
              <li key={finding.id} class={finding.outcome}>
                <b aria-label={finding.outcome}>{SIGN[finding.outcome] ?? "·"}</b> <code>{finding.code}</code> {finding.says}
              </li>
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}

/** Whether a finding speaks of a layer, of a part of it, of what it is part of, or of the whole network. */
const concerns = (finding: Finding, layer: string | null): boolean =>
  layer === null || finding.layer === null || finding.layer === layer || layer.startsWith(`${finding.layer}.`) || finding.layer.startsWith(`${layer}.`);

function Entry({ saying, findings, alone }: { saying: Saying; findings: Finding[]; alone: boolean }) {
  const worst = findings[0] as Finding;
  return (
    <li class={saying.outcome} id={worst.id} onPointerEnter={() => point({ layer: worst.layer })} onPointerLeave={() => point({ layer: null })}>
      <details>
        <summary>
          <b aria-label={saying.outcome}>{SIGN[saying.outcome]}</b> <code title={saying.means}>{saying.code}</code> {worst.says}
          {!alone && saying.others && <small> ({saying.others})</small>}
        </summary>
        {worst.do && <p>What to do: {worst.do}.</p>}
        <dl>
          {Object.entries(worst.evidence).map(([name, value]) => (
            <div key={name}>
              <dt>{name.replaceAll("_", " ")}</dt>
              <dd>{number(value)}</dd>
            </div>
          ))}
        </dl>
        <p class="quiet">
          {worst.instrument}
          {worst.step !== null && `, step ${number(worst.step)}`}
          {worst.split && `, ${worst.split}`}. <span dangerouslySetInnerHTML={{ __html: worst.source_html }} />
        </p>
        {[...new Set(findings.flatMap((finding) => finding.layer ?? []))].map((layer) => (
          <button key={layer} onClick={() => show({ layer, ...(worst.step === null ? {} : { step: worst.step }) })}>Show {layer}</button>
        ))}
        <button onClick={() => show({ instrument: worst.instrument.split(":")[0] ?? null })}>Charts of {worst.instrument}</button>
      </details>
    </li>
  );
}
