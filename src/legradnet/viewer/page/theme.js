// Dark or light: as the system says, until the reader says otherwise. Films are read on black in both.

const CHOICES = ["system", "dark", "light"];
const KEPT = "legradnet theme";

const root = document.documentElement;
const button = document.getElementById("theme");

function wear(choice) {
  if (choice === "system") delete root.dataset.theme;
  else root.dataset.theme = choice;
  button.textContent = { system: "Auto", dark: "Dark", light: "Light" }[choice];
  button.setAttribute("aria-label", { system: "Auto: colours as the system's", dark: "Dark colours", light: "Light colours" }[choice]);
}

let chosen = localStorage.getItem(KEPT) ?? "system";
wear(CHOICES.includes(chosen) ? chosen : "system");
button.addEventListener("click", () => {
  chosen = CHOICES[(CHOICES.indexOf(chosen) + 1) % CHOICES.length];
  localStorage.setItem(KEPT, chosen);
  wear(chosen);
});
