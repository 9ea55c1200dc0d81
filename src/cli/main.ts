#!/usr/bin/env node
/** The `gradmix` command. */
import { main } from "./program.ts";

process.exitCode = await main(process.argv.slice(2));
