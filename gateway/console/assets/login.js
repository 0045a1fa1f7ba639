// Redeems a one-time link by a click. Its secret is in the fragment, which no server ever sees.
const secret = location.hash.slice(1);
const form = document.querySelector("form");
const problem = document.querySelector(".problem");
if (secret) {
  // Out of the address bar, the history and whatever is copied from it.
  history.replaceState(null, "", "/login");
  document.querySelector(".explain").hidden = true;
  form.hidden = false;
  form.querySelector("button").focus();
}
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  problem.textContent = "";
  try {
    const answer = await fetch("/login", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ secret }),
    });
    const told = await answer.json();
    if (answer.ok) {
      localStorage.setItem("portcullis-token", told.token);
      location.replace("/");
      return;
    }
    problem.textContent = told.error;
    form.hidden = answer.status === 403;
  } catch {
    problem.textContent = "The gateway does not answer. Try again.";
  }
  button.disabled = false;
});
