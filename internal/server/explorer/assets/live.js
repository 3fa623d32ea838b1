// What the pages do beyond HTML: the tail grows by itself, the trace is drawn on, and "/" leads to the search box. Text from the
// network only ever becomes text nodes.
"use strict";
(() => {
  const q = document.getElementById("q");
  document.addEventListener("keydown", (e) => {
    if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey || !q) return;
    const at = document.activeElement;
    if (at && (at.tagName === "INPUT" || at.tagName === "TEXTAREA" || at.isContentEditable)) return;
    e.preventDefault();
    q.focus();
    q.select();
  });

  const list = document.querySelector("[data-live]");
  if (!list || !window.EventSource) return;
  const max = Number(list.dataset.max) || 50;
  let last = Number(list.dataset.last) || 0;
  let paused = false;
  let waiting = [];
  const dot = document.querySelector("[data-state]");
  const word = document.querySelector("[data-state-text]");
  const button = document.querySelector("[data-pause]");
  const chart = document.querySelector('[data-chart="fast"]');
  const rate = document.querySelector("[data-rate]");

  const el = (name, cls, text) => {
    const n = document.createElement(name);
    if (cls) n.className = cls;
    if (text !== undefined) n.textContent = text;
    return n;
  };
  const isolated = (text) => el("bdi", "", text);
  const link = (cls, path, text) => {
    const a = el("a", cls);
    if (path.startsWith("/at/")) a.setAttribute("href", path);
    a.append(isolated(text));
    return a;
  };
  const short = (s) => (s.length <= 24 ? s : s.slice(0, 12) + "…" + s.slice(-6));
  const state = (name, text) => {
    if (dot) dot.className = "dot " + name;
    if (word) word.textContent = text;
  };

  const row = (e, r) => {
    const li = el("li", "ev fresh " + (/^[a-z]+$/.test(r.action) ? r.action : ""));
    const t = el("time", "", (e.time || "").slice(11, 19));
    t.dateTime = e.time || "";
    li.append(t, el("span", "act", r.action), link("who", "/at/" + e.did, e.handle || short(e.did)));
    if (r.collection) li.append(link("what", r.href, r.collection));
    if (r.preview) {
      const say = el("span", "say");
      const bdi = el("bdi");
      for (const g of r.preview) {
        if (g.m) {
          const m = el("span", "ctl", g.m);
          m.title = "a character that can’t be seen";
          bdi.append(m);
        } else bdi.append(g.t || "");
      }
      say.append(bdi);
      li.append(say);
    }
    return li;
  };

  const show = (e) => {
    const rows = e.rows.map((r) => row(e, r));
    if (e.more) rows.push(row(e, { action: "more", preview: [{ t: "and " + e.more + " more in the same commit" }] }));
    document.querySelectorAll("[data-empty]").forEach((n) => n.remove());
    list.prepend(...rows);
    while (list.children.length > max) list.lastElementChild.remove();
  };

  const source = new EventSource(list.dataset.live + (list.dataset.live.includes("?") ? "&" : "?") + "after=" + last);
  source.addEventListener("open", () => state(paused ? "paused" : "on", paused ? "paused" : "live"));
  source.addEventListener("error", () => state("off", source.readyState === EventSource.CLOSED ? "not connected" : "connecting again"));
  source.addEventListener("event", (m) => {
    const e = JSON.parse(m.data);
    if (e.seq <= last) return;
    last = e.seq;
    if (!paused) return show(e);
    waiting.push(e);
    if (waiting.length > max) waiting.shift();
    state("paused", waiting.length + " new");
  });
  source.addEventListener("trace", (m) => {
    const c = JSON.parse(m.data);
    if (rate) rate.textContent = c.rate;
    if (!chart) return;
    chart.querySelector("[data-line]").setAttribute("d", c.line);
    chart.querySelector("[data-pen]").setAttribute("d", c.pen);
    chart.querySelector("[data-area]").setAttribute("d", c.area);
    chart.querySelector("[data-max]").textContent = c.max;
    chart.querySelector("[data-half]").textContent = c.half;
  });
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      paused = !paused;
      button.textContent = paused ? "Go on" : "Pause";
      if (paused) return state("paused", "paused");
      waiting.forEach(show);
      waiting = [];
      state("on", "live");
    });
  }
  window.addEventListener("pagehide", () => source.close());
})();
