// What was found, the most pressing first; a finding leads to its layer, and a layer to its findings.
import { number } from "../format";
import { point, show, shown } from "../state";
import { first } from "../store";
import type { Finding } from "../types";

const SPOKEN = ["issue", "failed", "tip"];
const SIGN: Record<string, string> = { issue: "✗", failed: "✗", tip: "!", passed: "✓" };

export function Findings() {
  const index = first.value;
  if (!index) return null;
  const layer = shown.value.layer;
  const words = shown.value.search.toLowerCase();
  const fits = (finding: Finding): boolean =>
    (!layer || finding.layer === null || finding.layer === layer || layer.startsWith(`${finding.layer}.`) || finding.layer.startsWith(`${layer}.`)) &&
    `${finding.code} ${finding.says} ${finding.layer ?? ""} ${finding.instrument}`.toLowerCase().includes(words);
  const spoken = index.findings.filter((finding) => SPOKEN.includes(finding.outcome) && fits(finding));
  const quiet = index.findings.filter((finding) => !SPOKEN.includes(finding.outcome));
  return (
    <section class="findings" aria-label="Findings">
      <h2>
        Findings <small>{index.verdict}</small>
      </h2>
      {!spoken.length && <p class="quiet">{layer ? `Nothing is said of ${layer}.` : "Nothing asks for your attention."}</p>}
      <ul>
        {spoken.map((finding) => (
          <li key={finding.id} class={finding.outcome} id={finding.id} onPointerEnter={() => point({ layer: finding.layer })} onPointerLeave={() => point({ layer: null })}>
            <details>
              <summary>
                <b aria-label={finding.outcome}>{SIGN[finding.outcome]}</b> <code>{finding.code}</code> {finding.says}
              </summary>
              {finding.do && <p>What to do: {finding.do}.</p>}
              <dl>
                {Object.entries(finding.evidence).map(([name, value]) => (
                  <div key={name}>
                    <dt>{name.replaceAll("_", " ")}</dt>
                    <dd>{number(value)}</dd>
                  </div>
                ))}
              </dl>
              <p class="quiet">
                {finding.instrument}
                {finding.step !== null && `, step ${number(finding.step)}`}
                {finding.split && `, ${finding.split}`}. <span dangerouslySetInnerHTML={{ __html: finding.source_html }} />
              </p>
              {finding.layer && <button onClick={() => show({ layer: finding.layer, ...(finding.step === null ? {} : { step: finding.step }) })}>Show {finding.layer}</button>}
              <button onClick={() => show({ instrument: finding.instrument })}>Show the charts of {finding.instrument}</button>
            </details>
          </li>
        ))}
      </ul>
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
