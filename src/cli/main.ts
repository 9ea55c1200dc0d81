#!/usr/bin/env node
/** The `gradmix` command. */
import { main } from "./program.ts";

// Not by itself: a reader that takes nothing would keep the process waiting.
process.exit(await main(process.argv.slice(2)));
