// Before the page is drawn: the theme that was chosen here last, if one was.
try {
  const chosen = localStorage.getItem("indelible-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be refused; then the system's theme holds.
}
