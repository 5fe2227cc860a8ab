"use strict";
// A heading becomes a button that sorts its table. Rows without a value come last, whatever the order.
for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(table, heading));
  }
}

function sort(table, heading) {
  const column = heading.cellIndex;
  const body = table.tBodies[0];
  const isNumeric = "value" in body.rows[0].cells[column].dataset;
  // Numbers are first sorted from the highest, names from the first letter.
  const first = isNumeric ? "descending" : "ascending";
  const second = isNumeric ? "ascending" : "descending";
  const order = heading.getAttribute("aria-sort") === first ? second : first;
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const compare = (a, b) => {
    if (!isNumeric) return sign * a.localeCompare(b, undefined, { numeric: true });
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (a - b);
  };
  const key = (row) => {
    const cell = row.cells[column];
    return isNumeric ? cell.dataset.value : cell.textContent.trim();
  };
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  const words = `sorted by ${heading.textContent.trim()}, ${order}`;
  document.getElementById("sorted").textContent = words;
}
