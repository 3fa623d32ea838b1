// Narrows the list of schemas to those that hold some words. Without it the page is whole, and the browser's own search does.
const form = document.getElementById("filter");
const input = document.getElementById("filter-text");
const count = document.getElementById("filter-count");
const groups = [...document.querySelectorAll("#all > section")].map((el) => ({
  el,
  items: [...el.querySelectorAll(".schemas > li")].map((li) => ({ li, text: (el.querySelector("h2").textContent + "." + li.textContent).toLowerCase() })),
}));
const apply = () => {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const group of groups) {
    let any = false;
    for (const item of group.items) {
      const fits = words.every((w) => item.text.includes(w));
      item.li.hidden = !fits;
      any ||= fits;
      shown += fits;
    }
    group.el.hidden = !any;
  }
  count.textContent = words.length ? `${shown} of ${groups.reduce((n, g) => n + g.items.length, 0)}` : "";
};
form.hidden = false;
form.addEventListener("submit", (e) => e.preventDefault());
input.addEventListener("input", apply);
if (input.value) apply();
