"use strict";
// The page works without this script: it adds printing of closed details, closing by Escape,
// copying of commands, and sorting of tables.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  let opened = null;
  const close = () => { location.hash = "confusion"; opened.focus(); };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (!link) return;
    if (/^#(cell|class)-/.test(link.getAttribute("href"))) opened = link;
    else if (link.classList.contains("close") && opened) { event.preventDefault(); close(); }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && opened && /^#(cell|class)-/.test(location.hash)) close();
  });
  addEventListener("beforeprint", () => {
    for (const part of all("details:not([open])")) { part.open = true; part.dataset.closed = ""; }
  });
  addEventListener("afterprint", () => {
    for (const part of all("details[data-closed]")) { part.open = false; delete part.dataset.closed; }
  });
  if (navigator.clipboard) {
    for (const block of all("pre")) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "copy";
      button.textContent = "Copy";
      button.setAttribute("aria-label", "Copy the command " + block.textContent.trim());
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(block.textContent.trim());
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      });
      const holder = document.createElement("div");
      holder.className = "command";
      block.replaceWith(holder);
      holder.append(block, button);
    }
  }
  for (const table of all("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent.trim() || head.querySelector(".scale")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => {
          const text = row.cells[column].textContent.trim();
          const number = parseFloat(text.replace(/,/g, ""));
          return head.classList.contains("number") ? (isNaN(number) ? -1 : number) : text;
        };
        const rows = [...table.tBodies[0].rows].sort((one, other) => {
          const [a, b] = [value(one), value(other)];
          const order = typeof a === "number" ? a - b : a.localeCompare(b);
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }
})();
