// Before anything is painted, so that a dark page never flashes white.
(() => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = "auto";
  try { chosen = localStorage.getItem("reducerbench-theme") || "auto"; } catch { /* a page from disk may have no storage */ }
  const apply = () => {
    if (chosen === "auto") delete root.dataset.theme; else root.dataset.theme = chosen;
    root.toggleAttribute("data-dark", chosen === "dark" || (chosen === "auto" && system.matches));
    document.dispatchEvent(new Event("themechange"));
  };
  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme"), order = ["auto", "light", "dark"];
    const say = () => {
      button.textContent = `Theme: ${chosen}`;
      button.setAttribute("aria-label", `Colours: ${chosen === "auto" ? "as the system" : chosen}`);
    };
    button.addEventListener("click", () => {
      chosen = order[(order.indexOf(chosen) + 1) % order.length];
      try { localStorage.setItem("reducerbench-theme", chosen); } catch { /* see above */ }
      apply();
      say();
    });
    say();
  });
})();
