// Rows of a table by the column whose head was pressed; pressed again, the other way round. What is missing stays last.
"use strict";
(() => {
  const sortBy = (table, button) => {
    const head = button.closest("th"), column = Number(button.dataset.sortBy), numeric = button.dataset.kind === "number";
    const before = head.getAttribute("aria-sort");
    // Of numbers the highest is what is looked for first.
    const ascending = before ? before === "descending" : !numeric;
    const key = (row) => row.cells[column].dataset.sort;
    const compare = (a, b) => (numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
    const rows = [...table.tBodies[0].rows];
    const [there, missing] = [rows.filter((row) => key(row) !== undefined), rows.filter((row) => key(row) === undefined)];
    there.sort((a, b) => (ascending ? 1 : -1) * compare(key(a), key(b)));
    table.tBodies[0].append(...there, ...missing);
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  };
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    table.tHead.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) sortBy(table, button);
    });
  }
})();
