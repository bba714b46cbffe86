import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";

import { BUILT_RAPIDSNARK, circuitSize, ROOT } from "@bursar/prover";

import { measureProof } from "./bench/proofs.ts";

/** What this was tested with: rapidsnark 0.0.6 and the ffiasm that it names. */
const RAPIDSNARK = "3ea6c4d867fab2425ed435555ec84b8e30cb2826";
const FFIASM = "b9dce0a78a0ee172c23cee2465904383ea43f0ec";

const PACKAGES = ["cmake", "g++", "make", "nasm", "libgmp-dev", "nlohmann-json3-dev"];

const USAGE = `usage: npm run rapidsnark -- --source <repository> [--ffiasm <repository>]

Builds rapidsnark into build/rapidsnark/ and proves with it once. --source and --ffiasm are Git repositories, bare or not, of
github.com/iden3/rapidsnark and github.com/iden3/ffiasm; without --ffiasm the submodule depends/ffiasm of the source. Nothing is
downloaded but the Debian packages that are missing, and those only as root.

  --revision <commit>          of rapidsnark, instead of the tested ${RAPIDSNARK.slice(0, 12)}
  --ffiasm-revision <commit>   of ffiasm, instead of the tested ${FFIASM.slice(0, 12)}

Exit codes: 0 done, 1 failed, 2 wrong usage. How to prove with it: docs/prover.md.`;

const { source, ffiasm, help, ...revisions } = readArguments();
if (help) {
  console.log(USAGE);
} else {
  try {
    if (process.platform !== "linux" || process.arch !== "x64") {
      throw new Error(
        "This builds for Linux on x86-64. Elsewhere follow rapidsnark's own page and set BURSAR_RAPIDSNARK.",
      );
    }
    const fields = ffiasm ?? join(source, "depends", "ffiasm");
    assertRevision("rapidsnark", source, revisions.revision);
    assertRevision("ffiasm", fields, revisions["ffiasm-revision"]);
    installPackages();
    build(source, fields);
    const { milliseconds } = await measureProof(circuitSize("tiny"), { name: "rapidsnark", program: BUILT_RAPIDSNARK });
    console.log(`${BUILT_RAPIDSNARK}: proved circuit tiny in ${milliseconds.toFixed(0)} ms, and the proof verifies.`);
    console.log("Prove with it by BURSAR_PROVER=rapidsnark.");
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}

function readArguments() {
  try {
    const { values } = parseArgs({
      options: {
        source: { type: "string" },
        ffiasm: { type: "string" },
        revision: { type: "string", default: RAPIDSNARK },
        "ffiasm-revision": { type: "string", default: FFIASM },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.source === undefined && !values.help) return misused("--source is missing.");
    return { ...values, source: values.source ?? "" };
  } catch (error) {
    return misused((error as Error).message);
  }
}

function misused(why: string): never {
  console.error(`${why}\n\n${USAGE}`);
  process.exit(2);
}

/** Installs what is missing, or says what it is. */
function installPackages(): void {
  const isInstalled = (name: string): boolean => {
    const { stdout, status } = spawnSync("dpkg-query", ["--show", "--showformat=${Status}", name], {
      encoding: "utf8",
    });
    return status === 0 && stdout.endsWith("ok installed");
  };
  const missing = PACKAGES.filter((name) => !isInstalled(name));
  if (missing.length === 0) return;
  const install = ["install", "--yes", "--no-install-recommends", ...missing];
  if (process.getuid?.() !== 0) throw new Error(`Packages are missing. As root: apt-get ${install.join(" ")}`);
  run("apt-get", install);
}

function build(rapidsnark: string, fields: string): void {
  const folder = dirname(BUILT_RAPIDSNARK);
  mkdirSync(dirname(folder), { recursive: true });
  const staging = mkdtempSync(`${folder}.`);
  const tree = join(staging, "source");
  try {
    unpack(rapidsnark, revisions.revision, tree);
    unpack(fields, revisions["ffiasm-revision"], join(tree, "depends", "ffiasm"));
    const made = join(staging, "made");
    run("cmake", ["-S", tree, "-B", made, "-DCMAKE_BUILD_TYPE=Release"]);
    run("cmake", ["--build", made, "--target", "prover", "--parallel"]);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder);
    cpSync(join(tree, "COPYING"), join(folder, "COPYING"));
    writeFileSync(join(folder, "revisions.json"), JSON.stringify(revisions));
    renameSync(join(made, "src", "prover"), BUILT_RAPIDSNARK);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

function assertRevision(name: string, repository: string, revision: string): void {
  const known = existsSync(repository)
    ? spawnSync("git", ["-C", repository, "cat-file", "-e", `${revision}^{commit}`])
    : null;
  if (known?.status === 0) return;
  const why = known ? `has no commit ${revision}` : "is not there";
  throw new Error(`${repository} ${why}. Clone https://github.com/iden3/${name} and name the folder; see --help.`);
}

/** The files of one revision, and no others that may lie in the folder. */
function unpack(repository: string, revision: string, into: string): void {
  mkdirSync(into, { recursive: true });
  const archive = execFileSync("git", ["-C", repository, "archive", revision], { maxBuffer: 1 << 28 });
  execFileSync("tar", ["--extract", "--directory", into], { input: archive });
}

/** Shows what a program says only when it fails. */
function run(command: string, parameters: readonly string[]): void {
  console.error(`… ${command} ${parameters.join(" ").replaceAll(ROOT, "")}`);
  const { status, stdout, stderr, error } = spawnSync(command, parameters, { encoding: "utf8", maxBuffer: 1 << 26 });
  if (status !== 0) throw new Error(`${command} failed: ${error?.message ?? `${stdout}${stderr}`}`);
}
