// Runs before the first paint, so that a chosen theme never flashes in the other one. A classic script
// for that reason; everything else is a module.
(() => {
  const KEY = "tidewarden.theme";
  const read = () => {
    try {
      return localStorage.getItem(KEY) || "auto";
    } catch {
      return "auto"; // storage may be forbidden; the system's preference then decides
    }
  };
  const apply = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
  };
  apply(read());
  window.tidewardenTheme = {
    read,
    choose(theme) {
      try {
        localStorage.setItem(KEY, theme);
      } catch {
        // Not remembered, but applied.
      }
      apply(theme);
      window.dispatchEvent(new CustomEvent("themechange"));
    },
    isDark() {
      const chosen = document.documentElement.dataset.theme;
      return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    },
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    window.dispatchEvent(new CustomEvent("themechange")),
  );
})();
