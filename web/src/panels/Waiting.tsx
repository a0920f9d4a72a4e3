// What takes longer than a second says so, and can be cancelled.
import { useEffect, useState } from "preact/hooks";

export function Waiting({ what, stop }: { what: string; stop: () => void }) {
  const [long, setLong] = useState(false);
  useEffect(() => {
    const later = setTimeout(() => setLong(true), 1000);
    return () => clearTimeout(later);
  }, []);
  return (
    <p class="quiet waiting" role="status">
      {long ? "Still loading" : "Loading"} {what}. {long && <button onClick={stop}>Cancel</button>}
    </p>
  );
}
