/** The page in headless Chromium: drawings, text, sorting, searching, widths, colour schemes; and the page of a run in progress. One browser for all. */
import { appendFileSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { renderClusterPage } from "#dist/report/cluster-page.js";
import { writeReport } from "#dist/report/index.js";
import { dark, light } from "#dist/report/page/theme.js";
import { watchRun } from "#dist/report/serve.js";
import { chromiumMissing } from "../browser/chromium.ts";
import { type Tab, withTab } from "../browser/devtools.ts";
import { expectNear } from "../near.ts";
import { domainNames, madeLines, makeRun, sizeOfDomain, weightsAt } from "./made-runs.ts";

const HOSTILE = "</script><b onclick=alert(1)>";
const missing = chromiumMissing();
const work = mkdtempSync(join(tmpdir(), "gradmix-page-"));
afterAll(() => rmSync(work, { recursive: true, force: true }));

/** Colours of a chart's canvas, with how many pixels have them; faint ones are left out. */
const colours = (selector: string): string => `(() => {
  const canvas = document.querySelector(${JSON.stringify(`${selector} canvas`)});
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const found = {};
  for (let at = 0; at < data.length; at += 4)
    if (data[at + 3] === 255) {
      const colour = "#" + [0, 1, 2].map((i) => data[at + i].toString(16).padStart(2, "0")).join("");
      found[colour] = (found[colour] ?? 0) + 1;
    }
  return found;
})()`;

const texts = (selector: string): string =>
  `[...document.querySelectorAll(${JSON.stringify(selector)})].filter((one) => one.offsetParent !== null).map((one) => one.textContent.trim().replaceAll("\\u00a0", " "))`;

/** Types into the search box of this label. */
const type = (label: string, text: string): string => `(() => {
  const box = document.querySelector(${JSON.stringify(`input[aria-label="${label}"]`)});
  box.value = ${JSON.stringify(text)};
  box.dispatchEvent(new Event("input", { bubbles: true }));
})()`;

/** Does nothing until the page has drawn again. */
const drawn = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(null))))";

interface Seen {
  readonly [name: string]: unknown;
}

const names = [HOSTILE, ...domainNames(23)];
const rules = ["dga", "uniform"];

function pageOf(name: string, folders: readonly string[]): string {
  const file = join(work, `${name}.html`);
  writeReport(folders, file, {
    exportsOf: () => [
      { name: "json", text: '{"a": 1}' },
      { name: "csv", text: HOSTILE },
    ],
  });
  return file;
}

/** All that the tests look at. */
async function look(tab: Tab): Promise<Seen> {
  const runs = rules.flatMap((rule) =>
    [1, 2, 3].map((seed) =>
      makeRun(join(work, `${rule}-${seed}`), {
        rule,
        seed,
        domains: names,
        worse: rule === "uniform" ? 0.3 : 0,
        cap: 1,
      }),
    ),
  );
  const file = pageOf("many", runs);
  const url = pathToFileURL(file).href;
  const ask = <T>(expression: string): Promise<T> => tab.evaluate<T>(expression);
  const seen: Record<string, unknown> = { size: statSync(file).size };
  await tab.open(url, { width: 1600 });
  seen["title"] = await ask("document.title");
  seen["summary"] = await ask(texts("#summary p"));
  seen["figures"] = await ask(texts("#summary tbody tr"));
  seen["target"] = await ask(colours("[data-figure=target]"));
  seen["targetNames"] = await ask(texts("[data-figure=target] .legend .name"));
  seen["weights"] = await ask(colours("[data-figure=weights]"));
  seen["weightNames"] = await ask(texts("[data-figure=weights] .legend .name"));
  seen["panels"] = await ask(texts("#loss .multiples figcaption"));
  seen["hostile"] = await ask(
    "document.querySelectorAll('b').length + document.querySelectorAll('[onclick]').length",
  );
  seen["axis"] = await ask("document.querySelector('[data-figure=target] .plot').getAttribute('aria-label')");
  seen["epochs"] = await ask(colours("[data-figure=epochs]"));
  seen["capped"] = await ask(texts("[data-figure=epochs] .note"));
  seen["table"] = await ask(texts("#domains tbody tr th"));
  await ask(
    "[...document.querySelectorAll('#domains thead button')].find((one) => one.textContent === 'tokens').click()",
  );
  seen["byTokens"] = await ask(texts("#domains tbody td:nth-child(6)"));
  await ask(
    "[...document.querySelectorAll('#domains thead button')].find((one) => one.textContent === 'tokens').click()",
  );
  seen["byTokensUp"] = await ask(texts("#domains tbody td:nth-child(6)"));
  seen["sort"] = await ask("document.querySelector('#domains th[aria-sort]').getAttribute('aria-sort')");
  await ask(type("Search the table", "domain-1"));
  seen["found"] = await ask(texts("#domains tbody tr th"));
  await ask(type("Search a domain's loss", "domain-22"));
  seen["foundPanel"] = await ask(texts("#loss .multiples figcaption"));
  await ask(type("Search the heat map", "domain-2"));
  await ask(drawn);
  seen["heatRows"] = await ask("parseFloat(document.querySelector('.heat canvas').style.height) / 20");
  await ask(type("Search the heat map", "no domain has this name"));
  await ask(drawn);
  seen["heatNone"] = await ask(texts("#weights .readout"));
  await ask(type("Search the heat map", ""));
  await ask("document.querySelector('input[value=bits]').click()");
  seen["bits"] = await ask(texts("[data-figure=target] .legend .value"));
  await ask(
    "(() => { const run = document.getElementById('run'); run.value = '3'; run.dispatchEvent(new Event('change')); })()",
  );
  seen["runs"] = await ask("[...document.getElementById('run').options].map((one) => one.textContent)");
  seen["uniformAlignments"] = await ask(texts("#weights > .note"));
  seen["exports"] = await ask(
    "(() => { const choice = document.querySelector('.exports select'); choice.value = 'csv'; choice.dispatchEvent(new Event('change')); return document.querySelector('.exports textarea').value; })()",
  );
  await tab.open(url, { width: 400, scheme: "dark" });
  seen["narrow"] = await ask("document.documentElement.scrollWidth - document.documentElement.clientWidth");
  seen["narrowCharts"] = await ask(
    "[...document.querySelectorAll('.uplot')].map((one) => one.getBoundingClientRect().right - innerWidth).reduce((a, b) => Math.max(a, b))",
  );
  seen["dark"] = await ask(
    "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]",
  );
  seen["darkTarget"] = await ask(colours("[data-figure=target]"));
  await tab.send("Emulation.setEmulatedMedia", {
    media: "print",
    features: [{ name: "prefers-color-scheme", value: "dark" }],
  });
  await ask(`(dispatchEvent(new Event("beforeprint")), ${drawn})`);
  seen["paper"] = await ask("getComputedStyle(document.body).color");
  seen["paperTarget"] = await ask(colours("[data-figure=target]"));
  await tab.send("Emulation.setEmulatedMedia", { media: "" });

  const thousand = pageOf("thousand", [
    makeRun(join(work, "thousand"), { domains: domainNames(1000), steps: 30, evaluateEvery: 10 }),
  ]);
  seen["thousandSize"] = statSync(thousand).size;
  await tab.open(pathToFileURL(thousand).href, { width: 1600 });
  seen["others"] = await ask(texts("[data-figure=weights] .legend .name"));
  seen["thousandPanels"] = await ask(texts("#loss .multiples figcaption"));
  await ask(type("Search the table", "domain-999"));
  seen["last"] = await ask(texts("#domains tbody tr th"));
  seen["network"] = await ask("performance.getEntriesByType('resource').length");
  const atEnd = rules.map((rule) =>
    makeRun(join(work, `end-${rule}`), { rule, steps: 20, evaluateEvery: 20, domains: domainNames(5) }),
  );
  await tab.open(pathToFileURL(pageOf("ends", atEnd)).href, { width: 1000 });
  seen["dots"] = await ask(
    "[...document.querySelectorAll('#loss .bar-row')].map((row) => [row.querySelector('.name').textContent, row.querySelectorAll('.dot').length, row.querySelector('.value').textContent])",
  );
  await lookAtClusters(tab, seen);
  await followNew(tab, seen);
  await followOne(tab, seen);
  // The browser itself reports an answer with the status 500.
  seen["errors"] = tab.errors.filter((error) => !error.includes("the server responded with a status of 500"));
  return seen;
}

const CLUSTERS = 4096;

/** The page of a folder of clusters. */
async function lookAtClusters(tab: Tab, seen: Record<string, unknown>): Promise<void> {
  const rows = Array.from({ length: CLUSTERS }, (_, j) => ({
    name: j === 7 ? HOSTILE : `cluster-${j}`,
    documents: CLUSTERS - j,
    bytes: 1000 * (CLUSTERS - j),
    tokens: null,
    words: [HOSTILE, `word${j}`],
    examples: [`${HOSTILE} an example of Number ${j} ${"and so on ".repeat(20)}`],
  }));
  const documents = rows.reduce((sum, row) => sum + row.documents, 0);
  const file = join(work, "clusters.html");
  writeFileSync(
    file,
    renderClusterPage({ files: 3, documents, bytes: 1000 * documents, tokens: null, sample: 5000, clusters: CLUSTERS, rows }), // prettier-ignore
  );
  const url = pathToFileURL(file).href;
  const names = texts(".cluster h3");
  await tab.open(url, { width: 1200 });
  seen["clusterTitle"] = await tab.evaluate("document.querySelector('h1').textContent");
  seen["clusterNames"] = await tab.evaluate(names);
  await tab.evaluate("document.querySelector('#clusters .more').click()");
  seen["clustersMore"] = await tab.evaluate("document.querySelectorAll('.cluster').length");
  await tab.evaluate(type("Search the clusters", "number 4095 "));
  seen["clustersFound"] = await tab.evaluate(names);
  seen["clustersReadout"] = await tab.evaluate(texts("#clusters .readout"));
  seen["clustersMarked"] = await tab.evaluate(texts("#list mark"));
  await tab.evaluate(type("Search the clusters", ""));
  await tab.evaluate(
    "(() => { const order = document.querySelector('[aria-label=Order]'); order.value = 'small'; order.dispatchEvent(new Event('change')); })()",
  );
  seen["clustersSmall"] = await tab.evaluate("document.querySelector('.cluster h3').textContent");
  seen["clustersHostile"] = await tab.evaluate(
    "document.querySelectorAll('b').length + document.querySelectorAll('[onclick]').length",
  );
  await tab.open(url, { width: 400, scheme: "dark" });
  seen["clustersNarrow"] = await tab.evaluate(
    "document.documentElement.scrollWidth - document.documentElement.clientWidth",
  );
  seen["clustersDark"] = await tab.evaluate("getComputedStyle(document.body).backgroundColor");
}

/** A run that has no line yet, and one that has only the evaluation before its first step. */
async function followNew(tab: Tab, seen: Record<string, unknown>): Promise<void> {
  for (const [name, lines] of [
    ["empty", 0],
    ["started", 1],
  ] as const) {
    const folder = makeRun(join(work, name), { domains: domainNames(3), done: 0 });
    const all = readFileSync(join(folder, "metrics.jsonl"), "utf8").split("\n");
    writeFileSync(join(folder, "metrics.jsonl"), all.slice(0, lines).map((line) => `${line}\n`).join("")); // prettier-ignore
    const watch = await watchRun(folder, { port: 0, isRunning: () => true });
    try {
      await tab.open(watch.url, { width: 1000 });
      await tab.evaluate(drawn);
      seen[name] = await tab.evaluate(texts("#page p, #page figcaption"));
    } finally {
      await watch.close();
    }
  }
}

/** A run that continues while its page is open. */
async function followOne(tab: Tab, seen: Record<string, unknown>): Promise<void> {
  const run = { steps: 40, domains: domainNames(3) };
  const folder = makeRun(join(work, "going"), { ...run, done: 20 });
  const lines = readFileSync(join(makeRun(join(work, "whole"), run), "metrics.jsonl"), "utf8").split("\n");
  let running = true;
  const watch = await watchRun(folder, { port: 0, isRunning: () => running });
  try {
    await tab.open(watch.url, { width: 1000 });
    const status = async (wanted: string): Promise<string> =>
      tab.evaluate(
        `new Promise((done) => { const look = () => { const text = document.querySelector(".status").textContent; if (text.includes(${JSON.stringify(wanted)})) done(text); else setTimeout(look, 20); }; look(); setTimeout(() => done(document.querySelector(".status").textContent), 8000); })`,
      );
    seen["goingOn"] = await status("The run continues");
    appendFileSync(join(folder, "metrics.jsonl"), `${lines.slice(21, 41).join("\n")}\n`);
    writeFileSync(join(folder, "weights.json"), readFileSync(join(work, "whole/weights.json")));
    running = false;
    seen["ended"] = await status("has ended");
    seen["endedTarget"] = await tab.evaluate(texts("[data-figure=target] .legend .value"));
    writeFileSync(join(folder, "weights.json"), "");
    seen["unreadable"] = await status("cannot read");
  } finally {
    await watch.close();
  }
}

let seen: Seen = {};
beforeAll(async () => {
  if (missing === null) seen = await withTab(look);
}, 60_000);

const list = (name: string): readonly string[] => seen[name] as string[];
const has = (name: string): ((colour: string) => boolean) => {
  const found = seen[name] as Record<string, number>;
  return (colour) => (found[colour] ?? 0) >= 8;
};

describe.skipIf(missing !== null)("the page", () => {
  test("opens without errors, requests, or elements made by the names of domains", () => {
    expect(seen["errors"]).toEqual([]);
    expect([seen["network"], seen["hostile"]]).toEqual([0, 0]);
    expect(seen["title"]).toContain("gradmix report");
  });

  test("shows a run before its first step, and a search that finds nothing", () => {
    for (const name of ["empty", "started"]) {
      expect(list(name)).toContain("The run continues: step 0 of 40. This page follows it.");
      expect(list(name)).toContain("No step is complete so far.");
      // Its rule, dga, measures them at its first update.
      expect(list(name)).toContain("No alignments were measured so far.");
      expect(list(name)).toContain("No domain is above the limit of 8 epochs.");
      expect(list(name).join(" ")).not.toMatch(/many domains|at the end|Point at/);
    }
    expect(seen["heatNone"]).toEqual(["No name contains this text."]);
  });

  test("takes less than 1 MB in addition to its data", () => {
    expect(seen["size"]).toBeLessThan(600_000);
    expect(seen["thousandSize"]).toBeLessThan(1_000_000);
  });

  test("says what was gained, with the numbers of the lines", () => {
    const ends = (rule: string): number[] =>
      [1, 2, 3].map((seed) => {
        const lines = madeLines({ rule, seed, domains: names, worse: rule === "uniform" ? 0.3 : 0 });
        return (
          lines.flatMap((line) => ("event" in line ? [] : (line.evaluation?.target ?? []))).at(-1) ?? NaN
        );
      });
    const mean = (values: readonly number[]): number =>
      values.reduce((sum, value) => sum + value) / values.length;
    const [dga, uniform] = rules.map((rule) => mean(ends(rule)));
    expect(list("summary")[0]).toContain(`to ${dga.toFixed(3)} nats per token`);
    expect(list("summary")[1]).toContain(
      `${(uniform - dga).toFixed(3)} nats, ${(100 * (uniform / dga - 1)).toFixed(1)} % higher (95 % interval`,
    );
    expect(list("figures")[0]).toMatch(new RegExp(`^dga3${dga.toFixed(3)} ± .*best`));
    expect(list("figures")[1]).toContain(uniform.toFixed(3));
  });

  test("draws each group of runs in a colour of its own, from step 0 on, and not in the colour of a domain", () => {
    expect(list("targetNames")).toEqual(["dga (3 seeds)", "uniform (3 seeds)"]);
    expect(light.runs.filter(has("target"))).toEqual(light.runs.slice(0, 2));
    expect([...light.domains, ...light.domainLines].filter(has("target"))).toEqual([]);
    expect(seen["axis"]).toMatch(
      /^Held-out loss on the target, nats per token against tokens: dga \(3 seeds\) ends at \d\.\d{3}; uniform/,
    );
  });

  test("draws twelve domains and the others as areas, and none in the colour of a run", () => {
    expect(light.domains.filter(has("weights"))).toEqual(light.domains);
    expect(has("weights")(light.others)).toBe(true);
    expect(light.runs.filter(has("weights"))).toEqual([]);
    // As they lie: the heaviest, which is the first, at the bottom.
    expect(list("weightNames")[0]).toBe("12 others");
    expect(list("weightNames").at(-1)).toBe(HOSTILE);
    expect(list("weightNames").length).toBe(13);
  });

  test("draws the cap, and says which domains exceed it", () => {
    expect(has("epochs")(light.warning)).toBe(true);
    const passing = names.filter((_, i) => {
      const lines = madeLines({ domains: names }).flatMap((line) => ("event" in line ? [] : [line]));
      return (lines.at(-1)?.domains.get(names[i])?.tokens ?? 0) > sizeOfDomain(i);
    });
    expect(passing.length).toBeGreaterThan(0);
    for (const name of passing.slice(0, 8)) expect(list("capped")[0]).toContain(name);
  });

  test("shows domains that were evaluated only at the start and the end as dots, the heaviest first", () => {
    const last = rules.map((rule) =>
      madeLines({ rule, steps: 20, evaluateEvery: 20, domains: domainNames(5) }).at(-1),
    );
    const ends = last.map((line) =>
      line === undefined || "event" in line ? undefined : line.evaluation?.domains,
    );
    const final = weightsAt(5, 19 / 20);
    const order = [...final.keys()].sort((i, j) => final[j] - final[i]).map((i) => `domain-${i}`);
    expect(seen["dots"]).toEqual(
      order.map((name) => [name, 2, ends.map((losses) => (losses?.get(name) ?? NaN).toFixed(3)).join(" · ")]),
    );
  });

  test("tables can be sorted and searched", () => {
    const final = weightsAt(24, 39 / 40);
    const byWeight = [...names.keys()].sort((i, j) => final[j] - final[i]).map((i) => names[i]);
    expect(list("table")).toEqual(byWeight);
    const value = (text: string): number => Number(text.replace("k", "e3"));
    const down = list("byTokens").map(value);
    expect(down).toEqual([...down].sort((a, b) => b - a));
    expect(list("byTokensUp").map(value)).toEqual([...down].reverse());
    expect(seen["sort"]).toBe("ascending");
    expect([...list("found")].sort()).toEqual(names.filter((name) => name.includes("domain-1")).sort());
    expect([list("panels").length, list("foundPanel")]).toEqual([12, ["domain-22"]]);
    expect(seen["heatRows"]).toBe(names.filter((name) => name.includes("domain-2")).length);
  });

  test("the unit, the run and the format of the mixture can be changed", () => {
    const nats = Number(/to (\d\.\d{3}) nats/.exec(list("summary")[0])?.[1]);
    expectNear(Number(list("bits")[0]), (nats * 0.25) / Math.LN2, 2e-3);
    expect(list("runs")).toEqual(rules.flatMap((rule) => [1, 2, 3].map((seed) => `${rule}, seed ${seed}`)));
    expect(list("uniformAlignments")).toContain("No alignments were measured.");
    expect(seen["exports"]).toBe(HOSTILE);
  });

  test("fits 400 pixels, and is dark if the reader prefers it, but not on paper", () => {
    expect(seen["narrow"]).toBe(0);
    expect(seen["narrowCharts"]).toBeLessThanOrEqual(0);
    const rgb = (colour: string): string =>
      `rgb(${[1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16)).join(", ")})`;
    expect(seen["dark"]).toEqual([dark.background, dark.ink].map(rgb));
    expect(dark.runs.filter(has("darkTarget"))).toEqual(dark.runs.slice(0, 2));
    expect(seen["paper"]).toBe(rgb(light.ink));
    expect(light.runs.filter(has("paperTarget"))).toEqual(light.runs.slice(0, 2));
  });

  test("offers all of a thousand domains", () => {
    expect(list("others")[0]).toBe("988 others");
    expect(list("thousandPanels").length).toBe(12);
    expect(list("last")).toEqual(["domain-999"]);
  });

  test("of 4,096 clusters it shows the largest, finds the last one by a word of its text, and fits 400 pixels", () => {
    expect(seen["clusterTitle"]).toBe("4,096 clusters of 8,390,656 documents");
    expect(list("clusterNames").length).toBe(60);
    expect(list("clusterNames").slice(6, 9)).toEqual(["cluster-6", HOSTILE, "cluster-8"]);
    expect(seen["clustersMore"]).toBe(360);
    expect(seen["clustersFound"]).toEqual(["cluster-4095"]);
    expect(seen["clustersReadout"]).toEqual(["1 found, with <0.01 % of the documents"]);
    // As it stands there, in capitals too.
    expect(seen["clustersMarked"]).toEqual(["Number 4095"]);
    expect(seen["clustersSmall"]).toBe("cluster-4095");
    expect([seen["clustersHostile"], seen["clustersNarrow"]]).toEqual([0, 0]);
    expect(seen["clustersDark"]).toBe((seen["dark"] as string[])[0]);
  });

  test("follows a run, and says when it has ended", () => {
    expect(seen["goingOn"]).toContain("step 20 of 40");
    expect(seen["ended"]).toBe("The run has ended after 40 steps.");
    const last = madeLines({ steps: 40, domains: domainNames(3) }).at(-1);
    if (last === undefined || "event" in last) throw new Error("no last line");
    expect(list("endedTarget")).toEqual([(last.evaluation?.target ?? NaN).toFixed(3)]);
    expect(seen["unreadable"]).toMatch(
      /^gradmix watch cannot read the run; the page shows the last data it received\. .*weights\.json, line 1, column 1: /,
    );
  });
});
