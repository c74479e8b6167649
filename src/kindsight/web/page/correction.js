/** "Wrong, it is ...": the choice of an image's correct class. */

import { largest } from "./decide.js";
import { byId, element, named, shown } from "./dom.js";
import { REASONS } from "./verdict.js";

const NUMBERED = 9; // classes that have a number key
const LISTED = 60; // classes that are shown at once

/**
 * Return the corrections of the page: {show, press}. `changed(image)` is called after a correction
 * was made, stored or undone; `say` makes a screen reader announce a text.
 *
 * An image's `correction` is null, or {label, text, state, message}: `label` is null for none of the
 * classes, `state` "sending", "kept", "failed" or "here".
 */
export function createCorrections(classifier, changed, say) {
  const [button, panel, note] = [byId("wrong"), byId("classes"), byId("correction")];
  const list = element("ul", { class: "choices" });
  const find = element("input", { type: "search", "aria-label": "Find a class",
    placeholder: "Find a class", autocomplete: "off", spellcheck: "false", oninput: () => fill() });
  const more = element("p", { class: "small", role: "status" });
  panel.append(element("p", { class: "question", id: "question" }, "Which class is correct?"), find, list, more);
  let image = null;
  let filledFor = null;
  let numbered = []; // labels by their number keys: null for none of the classes
  let opener = button; // gets the focus back when the panel is closed

  function show(selected) {
    image = selected;
    const isOffered = image !== null && image.answer !== null;
    byId("actions").hidden = !isOffered;
    panel.hidden = !isOffered || button.getAttribute("aria-expanded") !== "true";
    if (!panel.hidden && filledFor !== image.answer) {
      find.value = "";
      fill();
    }
    showNote();
  }

  function open() {
    const { activeElement } = document;
    opener = activeElement !== null && activeElement !== document.body ? activeElement : button;
    button.setAttribute("aria-expanded", "true");
    filledFor = null;
    show(image);
    (find.hidden ? list.querySelector("button") : find).focus();
    panel.scrollIntoView({ block: "nearest" });
  }

  /** Close the panel, and return the focus to where it was. */
  function close() {
    const isFocused = panel.contains(document.activeElement);
    button.setAttribute("aria-expanded", "false");
    panel.hidden = true;
    if (isFocused) (opener.isConnected ? opener : button).focus({ preventScroll: true });
  }

  /** List the classes: a few in their order, many with the most probable first. */
  function fill() {
    filledFor = image.answer;
    const { classes } = classifier.info;
    find.hidden = classes.length <= NUMBERED;
    const text = find.value.trim().toLowerCase();
    const order = find.hidden ? Array.from(classes.keys()) : largest(image.answer.probabilities, classes.length);
    const names = order.map((index) => classes[index]).filter((name) => name.toLowerCase().includes(text));
    numbered = [null, ...(text === "" ? names.slice(0, NUMBERED) : [])];
    const choices = names.slice(0, LISTED).map((name, index) => {
      return choice(name, named(name), text === "" && index < NUMBERED ? index + 1 : null);
    });
    choices.push(choice(null, REASONS.unknown, 0));
    list.replaceChildren(...choices);
    more.textContent = names.length > LISTED ? `${(names.length - LISTED).toLocaleString("en")} more: type part of the name.`
      : names.length === 0 ? "No class name contains this." : "";
  }

  function choice(label, text, number) {
    const isChosen = image.correction !== null && image.correction.label === label;
    const key = number === null ? null : element("kbd", { "aria-hidden": "true" }, String(number));
    return element("li", {}, element("button", { type: "button", "aria-pressed": String(isChosen),
      "aria-keyshortcuts": number === null ? null : String(number), onclick: () => correct(label) },
    key, element("span", {}, text)));
  }

  /** Correct the image and close the panel; choosing the original label undoes a correction. */
  async function correct(label) {
    const corrected = image;
    close();
    const { answer } = corrected;
    const own = answer.reason === "" ? classifier.info.classes[answer.best] : undefined;
    if (label === own) {
      await takeBack();
      return;
    }
    const before = corrected.correction;
    const correction = { label, text: label ?? REASONS.unknown, state: "here", message: "",
      id: before?.id ?? null };
    corrected.correction = correction;
    if (classifier.correct) {
      correction.state = "sending";
      changed(corrected);
      update(corrected);
      try {
        correction.id = await classifier.correct(corrected, label);
        correction.state = "kept";
      } catch (error) {
        [correction.state, correction.message] = ["failed", error.message];
      }
    }
    changed(corrected);
    update(corrected);
    say(`Corrected: ${shown(correction.text)}. ${state(correction)}`);
  }

  async function takeBack() {
    const corrected = image;
    const { correction } = corrected;
    if (correction === null) return;
    try {
      if (correction.state === "kept") await classifier.forget(correction.id);
      corrected.correction = null;
      say("The correction was undone.");
    } catch (error) {
      correction.message = error.message;
      correction.state = "failed";
    }
    changed(corrected);
    update(corrected);
  }

  function update(corrected) {
    if (corrected !== image) return;
    if (!panel.hidden) fill();
    showNote();
    if (!document.activeElement || document.activeElement === document.body) button.focus();
  }

  function showNote() {
    const correction = image?.correction ?? null;
    note.hidden = correction === null;
    if (correction === null) return;
    const text = element("span", {}, "Corrected to ", element("strong", {}, named(correction.text)),
      `. ${state(correction)} `);
    note.replaceChildren(text, element("button", { type: "button", class: "plain", onclick: takeBack }, "Undo"));
    note.classList.toggle("is-failed", correction.state === "failed");
  }

  function state({ state: kind, message }) {
    if (kind === "sending") return "Sending to the server.";
    if (kind === "kept") return "Saved on the server, with the image.";
    if (kind === "failed") return `Not saved on the server: ${message}`;
    return "Saved in this page only, and in its CSV file.";
  }

  /** Handle a key that was pressed on a card or the result; return whether it was for this. */
  function press(key) {
    if (image === null || image.answer === null) return false;
    const isOpen = button.getAttribute("aria-expanded") === "true";
    if (key === "w" && !isOpen) open();
    else if ((key === "w" || key === "Escape") && isOpen) close();
    else if (isOpen && /^[0-9]$/.test(key) && numbered[Number(key)] !== undefined) correct(numbered[Number(key)]);
    else return false;
    return true;
  }

  button.addEventListener("click", () => (panel.hidden ? open() : close()));
  find.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || find.value.trim() === "") return;
    event.preventDefault();
    list.querySelector("button")?.click();
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const buttons = Array.from(list.querySelectorAll("button"));
    buttons[buttons.indexOf(event.target.closest("button")) + step]?.focus();
  });
  return { show, press };
}
