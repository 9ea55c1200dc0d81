/** python/gradmix_client.py with the standard library alone. */
import { checksOf } from "./checks.ts";

checksOf("client_checks");
