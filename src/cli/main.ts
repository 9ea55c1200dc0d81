#!/usr/bin/env node
/** The `gradmix` command. */
import { main } from "./program.ts";

// The process is ended explicitly, because a reader that does not read would keep it waiting.
process.exit(await main(process.argv.slice(2)));
