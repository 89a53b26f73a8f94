// Keeps the page fresh: every part with `data-live` is replaced by its newer self every two seconds, and at once
// when the fleet tells of an event. A part in which somebody is busy is left alone.
(() => {
  "use strict";
  const EVERY = 2000;
  let last = "", waiting = null, asking = false;

  const busy = (part) =>
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
      const url = new URL(location.href);
      url.searchParams.delete("did");
      const answer = await fetch(url, { headers: { accept: "text/html" }, credentials: "same-origin" });
      if (answer.redirected && new URL(answer.url).pathname === "/login") return location.assign(answer.url);
      const text = await answer.text();
      if (answer.ok && text !== last) { last = text; replace(text); }
      document.body.classList.remove("lost");
    } catch {
      document.body.classList.add("lost");
    } finally {
      asking = false;
    }
  };

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
