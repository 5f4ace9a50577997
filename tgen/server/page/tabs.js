// Tabs, as https://www.w3.org/WAI/ARIA/apg/patterns/tabs/ has them: arrow keys move, and what has the focus is shown.
import { byId } from "./dom.js";

/** Let the tabs of a list work; `shown` is called with the id of the panel that appears. */
export function tabs(list, shown) {
  const all = [...list.querySelectorAll("[role=tab]")];

  function show(tab) {
    for (const one of all) {
      one.setAttribute("aria-selected", one === tab);
      one.tabIndex = one === tab ? 0 : -1;
      byId(one.getAttribute("aria-controls")).hidden = one !== tab;
    }
    shown(tab.getAttribute("aria-controls"));
  }

  for (const tab of all) tab.addEventListener("click", () => show(tab));
  list.addEventListener("keydown", (event) => {
    const place = all.indexOf(document.activeElement);
    const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: all.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const tab = all[(next + all.length) % all.length];
    tab.focus();
    show(tab);
  });
}
