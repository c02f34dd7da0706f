"use strict";
// Numbers with units, times, and elements. What comes from a client becomes text, never markup.

const NUMBER = new Intl.NumberFormat("en");
const SMALL = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

const byId = (id) => document.getElementById(id);

/** An element with properties, and texts or elements in it. */
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Changes a text only if it differs, so that a selection in it stays. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** With the digits that matter: 0.2, 7.93, 1,050. */
function short(value) {
  return value < 1 ? SMALL.format(value) : value < 1000 ? SHORT.format(value) : NUMBER.format(Math.round(value));
}

const count = (value) => NUMBER.format(value);

function plural(value, one, many) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A number with three digits, and its unit: [text, unit]. */
function bytesParts(value) {
  let power = 0;
  while (value >= 1000 && power < BINARY.length - 1) {
    value /= 1024;
    power += 1;
  }
  return [SHORT.format(power === 0 ? Math.round(value) : value), BINARY[power]];
}

const bytes = (value) => bytesParts(value).join(" ");

function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24];
  const minutes = Math.floor(whole / 60) % 60;
  if (days > 0) return days < 10 ? `${days} d ${hours} h` : `${count(days)} d`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  if (minutes > 0) return minutes < 10 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  return `${whole} s`;
}

/** The relative text of a time, for times of the past and of the future. */
function relative(date, now) {
  const seconds = (now - date) / 1000;
  if (Math.abs(seconds) < 1.5) return "just now";
  return seconds > 0 ? `${duration(seconds)} ago` : `in ${duration(-seconds)}`;
}

/** How a `<time>` is written: the server's clock may differ from this one. */
const WORDS = {
  ago: (date) => relative(date, serverNow()),
  age: (date) => duration((serverNow() - date) / 1000),
};

let clockOffset = 0;

const serverNow = () => Date.now() + clockOffset;

/** A time in relative words, with the absolute time on hover. A timer keeps the words right. */
function timeElement(text, words = "ago") {
  const element = make("time", {});
  setTime(element, text, words);
  return element;
}

function setTime(element, text, words = "ago") {
  const date = new Date(text);
  element.dateTime = text;
  element.dataset.words = words;
  element.title = MOMENT.format(date);
  say(element, WORDS[words](date));
}

function refreshTimes() {
  for (const element of document.querySelectorAll("time[data-words]")) {
    say(element, WORDS[element.dataset.words](new Date(element.dateTime)));
  }
}

/** "over_limit" as "over limit". */
const plain = (word) => word.replaceAll("_", " ").replace("tls", "TLS");

/** For the start of a line: "Over limit". */
function title(word) {
  const text = plain(word);
  return text.charAt(0).toUpperCase() + text.slice(1);
}
