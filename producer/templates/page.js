// Keeps the page fresh: every part with `data-live` is replaced by its newer self every two seconds, and at once
// when the fleet tells of an event. A part in which somebody is busy is left alone.
(() => {
  "use strict";
  const EVERY = 2000;
  const TOLD = 10000;
  let last = "", waiting = null, asking = false;
  // What came of a button is told for a while, and not again by a reload.
  const address = new URL(location.href);
  const isTold = address.searchParams.has("did");
  if (isTold) {
    address.searchParams.delete("did");
    history.replaceState(null, "", address);
  }

  const busy = (part) =>
    (isTold && part.id === "state" && performance.now() < TOLD) ||
    part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea, summary, [data-stay]")
    || part.querySelector("details[open]") !== null;

  const replace = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const newer = fresh.getElementById(part.id);
      if (!newer) { part.replaceChildren(); continue; }
      if (busy(part) || part.innerHTML === newer.innerHTML) continue;
      const held = part.contains(document.activeElement) ? document.activeElement : null;
      const place = held ? [...part.querySelectorAll("a, button")].indexOf(held) : -1;
      part.innerHTML = newer.innerHTML;
      if (place >= 0) part.querySelectorAll("a, button")[place]?.focus();
    }
    // A part that was not there before comes with the whole.
    const shown = new Set([...document.querySelectorAll("[data-live]")].map((part) => part.id));
    const more = [...fresh.querySelectorAll("[data-live]")].some((part) => !shown.has(part.id));
    const open = document.querySelector("main details[open]") || document.activeElement?.matches("main input, main select");
    if (more && !open) document.querySelector("main").replaceWith(document.adoptNode(fresh.querySelector("main")));
  };

  const ask = async () => {
    if (asking || document.hidden || !document.querySelector("[data-live]")) return;
    asking = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, credentials: "same-origin" });
      if (answer.redirected && new URL(answer.url).pathname === "/login") return location.assign(answer.url);
      const text = await answer.text();
      if (answer.ok && (text !== last || isTold)) { last = text; replace(text); }
      document.body.classList.remove("lost");
    } catch {
      document.body.classList.add("lost");
    } finally {
      asking = false;
    }
  };

  // A cell of a calendar is looked at by a click; by keyboard with the arrows, then Enter.
  const look = (cell) => {
    const table = cell.closest("table.heat");
    const row = cell.parentElement.querySelector("th").textContent;
    const column = table.tHead.rows[0].cells[cell.cellIndex].textContent;
    const [x, y] = table.dataset.columns === "x" ? [column, row] : [row, column];
    location.search = new URLSearchParams({ of: table.dataset.of, x, y });
  };
  document.addEventListener("click", (event) => {
    const cell = event.target.closest?.("table.heat td[class]");
    if (cell) look(cell);
  });
  document.addEventListener("keydown", (event) => {
    const table = event.target.closest?.(".tall")?.querySelector("table.heat");
    if (!table) return;
    const at = table.querySelector("td.at") ?? null;
    if (event.key === "Enter" && at) return look(at);
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const rows = table.tBodies[0].rows;
    const row = at ? Math.min(Math.max(at.parentElement.sectionRowIndex + step[0], 0), rows.length - 1) : 0;
    const column = at ? Math.min(Math.max(at.cellIndex + step[1], 1), rows[row].cells.length - 1) : 1;
    at?.classList.remove("at");
    rows[row].cells[column].classList.add("at");
    rows[row].cells[column].scrollIntoView({ block: "nearest", inline: "nearest" });
  });

  const soon = () => { clearTimeout(waiting); waiting = setTimeout(ask, 150); };
  setInterval(ask, EVERY);
  document.addEventListener("visibilitychange", soon);
  if (document.querySelector("[data-live]") && "EventSource" in window) {
    const events = new EventSource("/api/v1/events");
    for (const name of ["run.started", "run.progressed", "run.completed", "run.failed", "run.cancelled", "message"])
      events.addEventListener(name, soon);
    addEventListener("pagehide", () => events.close());
  }
})();
