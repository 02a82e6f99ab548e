"use strict";
// Applies Airflow's theme, and updates the part of a page that changes. Pages work without this script.
(() => {
  const root = document.documentElement;
  const longestSeconds = 60;
  let failures = 0;
  let timer = 0;

  function applyTheme() {
    let theme = null;
    try {
      theme = window.localStorage.getItem("theme"); // Airflow's UI stores the theme here
    } catch {
      // The browser does not allow storage, so the theme of the system is used.
    }
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    else delete root.dataset.theme;
  }

  function show(text, isLate) {
    const line = document.getElementById("updated");
    line.textContent = text;
    line.classList.toggle("late", isLate);
  }

  // Replace an old part of the page by a new part. What the user has opened, marked or focused stays as it was.
  function swap(old, next) {
    const opened = [...old.querySelectorAll("details")].map((each) => each.open);
    const marked = new Set([...old.querySelectorAll("input:checked")].map((each) => each.value));
    const places = [...old.querySelectorAll(".wide")].map((each) => [each.scrollLeft, each.scrollTop]);
    const focusable = "a, button, input, summary, [tabindex]";
    const focused = [...old.querySelectorAll(focusable)].indexOf(document.activeElement);
    next.querySelectorAll("details").forEach((each, place) => { if (place in opened) each.open = opened[place]; });
    next.querySelectorAll("input").forEach((each) => { each.checked = marked.has(each.value); });
    old.replaceWith(next);
    next.querySelectorAll(".wide").forEach((each, place) => {
      if (place in places) [each.scrollLeft, each.scrollTop] = places[place];
    });
    if (focused >= 0) next.querySelectorAll(focusable)[focused]?.focus({ preventScroll: true });
  }

  async function load(address, id) {
    const response = await fetch(address, { credentials: "same-origin", cache: "no-store" });
    if (response.status === 401 || response.status === 403) return null;
    if (!response.ok) throw new Error(`status ${response.status}`);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return page.getElementById(id) ?? page.getElementById("live");
  }

  async function update() {
    const old = document.getElementById("live");
    try {
      let next = await load(old.dataset.source, "live");
      if (next === null) {
        show("You are no longer logged in, or may no longer read this page. Reload the page.", true);
        return;
      }
      const state = next.dataset.state;
      const whole = document.getElementById("whole");
      if (whole && !next.dataset.seconds) {
        next = await load(window.location.href, "whole"); // the run has ended, so its tables are complete
        swap(whole, next);
        showBox();
      } else {
        swap(old, next);
      }
      if (state !== old.dataset.state) document.getElementById("announced").textContent = `Now: ${state}`;
      failures = 0;
      show(`Updated at ${new Date().toLocaleTimeString()}.`, false);
    } catch {
      failures += 1;
      show(`The server did not answer at ${new Date().toLocaleTimeString()}. Trying again.`, true);
    }
    plan();
  }

  function plan() {
    const seconds = Number(document.getElementById("live")?.dataset.seconds);
    if (!seconds) return;
    window.clearTimeout(timer);
    timer = window.setTimeout(() => {
      if (document.hidden) return; // continues when the page is visible again
      update();
    }, 1000 * Math.min(longestSeconds, seconds * 2 ** failures));
  }

  // The box in which users try the model. The server sends the text as events.
  let writing = null;

  async function tryModel(form) {
    const [status, made] = [form.querySelector("[role=status]"), form.querySelector(".made")];
    const [start, stop] = [form.querySelector("[type=submit]"), form.querySelector("[data-stop]")];
    const own = new AbortController();
    writing = own;
    start.disabled = true;
    stop.hidden = false;
    made.hidden = false;
    made.textContent = form.elements.prompt.value;
    status.textContent = "Loading the model.";
    try {
      const question = {
        prompt: form.elements.prompt.value,
        temperature: Number(form.elements.temperature.value),
        top_k: Number(form.elements.top_k.value),
      };
      const response = await fetch(form.dataset.source, {
        method: "POST", credentials: "same-origin", signal: own.signal,
        headers: { "Content-Type": "application/json" }, body: JSON.stringify(question),
      });
      if (!response.ok) throw new Error((await response.json()).detail);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      let wrong = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        const events = (rest + part.value).split("\n\n");
        rest = events.pop();
        for (const event of events.filter((each) => each.startsWith("data: "))) {
          const { text, error } = JSON.parse(event.slice(6));
          made.append(text ?? "");
          wrong = error ?? wrong;
          status.textContent = "Writing.";
        }
      }
      if (wrong) throw new Error(wrong);
      status.textContent = "Done.";
    } catch (error) {
      status.textContent = own.signal.aborted ? "Stopped." : `No text: ${error.message}`;
    }
    start.disabled = false;
    stop.hidden = true;
  }

  function showBox() {
    const form = document.querySelector("form.try");
    if (form) form.hidden = false;
  }

  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form.try")) return;
    event.preventDefault();
    tryModel(event.target);
  });
  document.addEventListener("click", (event) => { if (event.target.matches("[data-stop]")) writing?.abort(); });
  document.addEventListener("DOMContentLoaded", showBox);
  applyTheme();
  window.addEventListener("storage", applyTheme);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) plan(); });
  document.addEventListener("DOMContentLoaded", plan);
})();
