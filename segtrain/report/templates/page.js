"use strict";
// Buttons that copy the text of the element that data-copy names.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(source.textContent);
    } catch {  // a page of the disk has no clipboard everywhere: select the text instead
      getSelection().selectAllChildren(source);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
// Which of several elements is shown: a choice of data-of hides the others of the same group.
for (const select of document.querySelectorAll("select[data-of]")) {
  const choose = () => {
    for (const part of document.querySelectorAll(`[data-part="${select.dataset.of}"]`)) part.hidden = part.dataset.value !== select.value;
  };
  select.addEventListener("change", choose);
  choose();
}
