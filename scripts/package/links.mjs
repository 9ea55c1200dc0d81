// @ts-check
/** Finds and checks the links of Markdown pages. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

/** Returns the fragment by which GitHub links to a heading. @param {string} heading */
const fragmentOf = (heading) =>
  heading
    .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\p{M}_ -]/gu, "")
    .replaceAll(" ", "-");

/** Reads a page and removes its blocks of code, whose contents may look like links or headings. @param {string} file */
const proseOf = (file) => readFileSync(file, "utf8").replaceAll(/^```[\s\S]*?^```$/gm, "");

/**
 * Relative links, of text and of images, that lead to no file of `folder` or to no heading of its page: "PAGE: LINK" for each.
 *
 * @param {string} folder
 * @param {readonly string[]} pages paths below it
 * @returns {string[]}
 */
export function brokenLinks(folder, pages) {
  /** @type {(page: string) => Set<string>} */
  const fragments = (page) =>
    new Set([...proseOf(join(folder, page)).matchAll(/^#+ +(.*?) *$/gm)].map(([, text]) => fragmentOf(text)));
  return pages.flatMap((page) =>
    [...proseOf(join(folder, page)).matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, link]) => link)
      .filter((link) => !/^[a-z]+:/.test(link))
      .filter((link) => {
        const [path, fragment] = link.split("#");
        const target = path === "" ? page : normalize(join(dirname(page), path));
        if (target.startsWith("..") || !existsSync(join(folder, target))) return true;
        return fragment !== undefined && !fragments(target).has(fragment);
      })
      .map((link) => `${page}: ${link}`),
  );
}
