"use strict";
// Tables of the class "sortable": a click on a head sorts by its column, another click the other way round.
// A cell's value is its data-value, else its text; empty values come last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const isText = head.classList.contains("text");
      const was = head.getAttribute("aria-sort");
      const rises = was ? was === "descending" : isText;
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...body.rows].sort((one, other) => {
        const [a, b] = [value(one), value(other)];
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = isText ? a.localeCompare(b, "en", {numeric: true}) : Number(a) - Number(b);
        return rises ? order : -order;
      });
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rises ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}
// What is wider than the page says so: "scrolls" while there is more to the right.
for (const wide of document.querySelectorAll(".wide")) {
  const note = () => wide.classList.toggle("scrolls", wide.scrollLeft + wide.clientWidth < wide.scrollWidth - 2);
  wide.addEventListener("scroll", note, {passive: true});
  new ResizeObserver(note).observe(wide);
  if (wide.firstElementChild) new ResizeObserver(note).observe(wide.firstElementChild);
}
