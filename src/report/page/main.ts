/** The page's script: shows the data that stands in the page. */
import type { PageData } from "../page-data.ts";
import { h, section } from "./dom.ts";

const text = document.getElementById("data")?.textContent ?? "";
const data = JSON.parse(text) as PageData;
const page = document.getElementById("page");
page?.replaceChildren(
  h("h1", {}, data.title),
  section(
    "summary",
    "What was gained",
    data.summary.map((sentence) => h("p", {}, sentence)),
  ),
);
