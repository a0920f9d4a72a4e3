"use strict";
(function () {
  const root = document.documentElement;
  const all = (query, from) => Array.from((from || document).querySelectorAll(query));
  const byId = (id) => document.getElementById(id);
  root.classList.remove("no-js");

  // theme: automatic, light, dark
  const themes = ["automatic", "light", "dark"];
  const keep = {
    get() { try { return localStorage.getItem("stratoscope-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("stratoscope-theme", value); } catch { /* not kept */ } },
  };
  function show(theme) {
    if (theme === "automatic") delete root.dataset.theme; else root.dataset.theme = theme;
    byId("theme").textContent = "Theme: " + theme;
  }
  let theme = themes.includes(keep.get()) ? keep.get() : "automatic";
  show(theme);
  byId("theme").addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    keep.set(theme);
    show(theme);
  });

  // sorting: rows whose value is missing stay last in either direction
  const key = (row, at, number) => {
    const cell = row.cells[at];
    if (!cell || cell.colSpan > 1) return null;
    if (cell.dataset.v) return Number(cell.dataset.v);
    return (number && cell.dataset.v === "") || cell.textContent.trim() === "" ? null : cell.textContent.trim();
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  function sort(table, at, down, number) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows).map((row) => [key(row, at, number), row]);
    rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : (down ? -1 : 1) * compare(a, b));
    body.append(...rows.map(([, row]) => row));
  }
  all("table.layers").forEach((table) => {
    const heads = Array.from(table.tHead.rows[0].cells);
    const first = Array.from(table.tBodies[0].rows);
    heads.forEach((head, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const state = head.getAttribute("aria-sort");
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        const next = head.classList.contains("num") ? { null: "descending", descending: "ascending" } : { null: "ascending", ascending: "descending" };
        const order = next[String(state)];
        if (!order) { table.tBodies[0].append(...first); return; }
        head.setAttribute("aria-sort", order);
        sort(table, at, order === "descending", head.classList.contains("num"));
      });
    });
    table.addEventListener("mouseover", (event) => {
      const cell = event.target.closest("td.num");
      if (cell && !cell.title) cell.title = heads[cell.cellIndex] ? heads[cell.cellIndex].title : "";
    });
  });

  // filtering
  const filter = byId("filter");
  if (filter) {
    const rows = all("table.layers tbody tr");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row) => {
        const text = [row.cells[0], ...all(".kind, .verdict, .meaning, .reason", row)].map((cell) => cell.textContent).join(" ").toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      });
      byId("count").textContent = words.length ? shown + " of " + rows.length + " rows" : "";
    });
    document.addEventListener("keydown", (event) => {
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); filter.focus(); }
      if (event.key === "Escape" && event.target === filter) { filter.value = ""; filter.dispatchEvent(new Event("input")); }
    });
    byId("csv").addEventListener("click", () => {
      const data = JSON.parse(byId("stratoscope-data").textContent);
      // a leading sign that a spreadsheet would run as a formula is quoted
      const cell = (value) => {
        let text = value === null || value === undefined ? "" : Array.isArray(value) ? value.join("x") : String(value);
        if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;
        return /[",\n\r]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
      };
      const lines = [data.columns].concat(data.rows);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([lines.map((line) => line.map(cell).join(",")).join("\n") + "\n"], { type: "text/csv" }));
      link.download = "layers.csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // one cursor for all charts over steps; values are read back from the drawn curves
  const points = (path) => {
    const found = [];
    let x = 0, y = 0;
    for (const [, command, a, b] of path.getAttribute("d").matchAll(/([Mlh])(-?[\d.]+)(?: (-?[\d.]+))?/g)) {
      if (command === "h") continue;
      x = command === "M" ? Number(a) : x + Number(a);
      y = command === "M" ? Number(b) : y + Number(b);
      found.push([x, y]);
    }
    return found;
  };
  const digits = (value) => value === 0 ? "0" : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  const plots = all(".ss-plot").map((group) => {
    const [left, right, low, high] = group.dataset.x.split(" ").map(Number);
    const [bottom, top, least, most, log] = group.dataset.y.split(" ").map(Number);
    const curves = all("[data-name]", group).map((part) => [part.dataset.name, all(".ss-line", part).flatMap(points)]);
    const read = (y) => {
      const share = (bottom - y) / (bottom - top);
      return log ? least * Math.pow(most / least, share) : least + share * (most - least);
    };
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("class", "cursor");
    line.setAttribute("visibility", "hidden");
    group.append(line);
    return { svg: group.ownerSVGElement, left, right, low, high, top, bottom, curves, read, line, unit: group.dataset.unit };
  });
  const tip = document.createElement("div");
  tip.className = "hover";
  tip.hidden = true;
  function point(step) {
    plots.forEach((plot) => {
      const inside = step !== null && step >= plot.low && step <= plot.high;
      plot.line.setAttribute("visibility", inside ? "visible" : "hidden");
      if (!inside) return;
      const x = plot.left + (step - plot.low) / (plot.high - plot.low) * (plot.right - plot.left);
      plot.line.setAttribute("d", "M" + x + " " + plot.top + "V" + plot.bottom);
    });
  }
  plots.forEach((plot) => {
    plot.svg.addEventListener("pointermove", (event) => {
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.svg.getScreenCTM().inverse());
      if (place.x < plot.left - 4 || place.x > plot.right + 4) { leave(); return; }
      let best = null;
      plot.curves.forEach(([name, curve]) => curve.forEach(([x, y]) => {
        const far = Math.abs(x - place.x) * 4 + Math.abs(y - place.y);
        if (best === null || far < best.far) best = { far, name, x, y };
      }));
      if (best === null) return;
      const step = plot.low + (best.x - plot.left) / (plot.right - plot.left) * (plot.high - plot.low);
      point(step);
      const figure = plot.svg.parentNode;
      figure.append(tip);
      tip.textContent = best.name + " ≈ " + digits(plot.read(best.y)) + (plot.unit ? " " + plot.unit : "") + " at step " + Math.round(step).toLocaleString("en");
      tip.hidden = false;
      const box = figure.getBoundingClientRect();
      tip.style.left = Math.max(4, Math.min(event.clientX - box.left + 12, box.width - tip.offsetWidth - 4)) + "px";
      tip.style.top = event.clientY - box.top - 30 + "px";
    });
    plot.svg.addEventListener("pointerleave", leave);
  });
  function leave() { tip.hidden = true; point(null); }

  // printing shows what is folded
  let folded = [];
  addEventListener("beforeprint", () => { folded = all("details:not([open])"); folded.forEach((part) => { part.open = true; }); });
  addEventListener("afterprint", () => { folded.forEach((part) => { part.open = false; }); });
})();
