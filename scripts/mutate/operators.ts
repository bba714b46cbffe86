/** A place in a source and what stands there instead. */
export interface Edit {
  readonly operator: string;
  /** Offsets in bytes of the UTF-8 source, as the compiler gives them. */
  readonly start: number;
  readonly length: number;
  readonly replacement: string;
}

/** What the operators read of a node of the compiler's syntax tree. */
interface Node {
  readonly nodeType: string;
  readonly src: string;
  readonly [property: string]: unknown;
}

const SWAPS: Readonly<Record<string, readonly string[]>> = {
  "<": ["<=", ">="],
  "<=": ["<", ">"],
  ">": [">=", "<="],
  ">=": [">", "<"],
  "==": ["!="],
  "!=": ["=="],
  "&&": ["||"],
  "||": ["&&"],
  "+": ["-"],
  "-": ["+"],
  "*": ["/"],
  "/": ["*"],
  "%": ["*"],
  "<<": [">>"],
  ">>": ["<<"],
  "&": ["|"],
  "|": ["&"],
  "+=": ["-="],
  "-=": ["+="],
};

/** Every mutant of the contracts, libraries and functions that a syntax tree holds. */
export function editsOf(tree: unknown, source: string): Edit[] {
  const bytes = Buffer.from(source);
  return [...nodesIn(tree)].flatMap((node) => {
    const [start, length] = node.src.split(":").map(Number) as [number, number];
    const text = (from = start, to = start + length): string => bytes.subarray(from, to).toString();
    /** With its semicolon, which the tree leaves out of a statement. */
    const removal = (operator: string): Edit => {
      const end = start + length;
      return { operator, start, length: length + (text(end, end + 1) === ";" ? 1 : 0), replacement: "{}" };
    };
    const edit = (operator: string, replacement: string): Edit => ({ operator, start, length, replacement });
    switch (node.nodeType) {
      case "BinaryOperation":
      case "Assignment":
        return swaps(node, text);
      case "UnaryOperation":
        return node["operator"] === "!" ? [edit("negation", operandOf(node, text))] : [];
      case "IfStatement":
        return conditionOf(node, text, removal);
      case "ExpressionStatement":
        return [removal(`${kindOf(node)} removed`)];
      case "EmitStatement":
        return [removal("event removed")];
      case "RevertStatement":
        return [];
      case "Return":
        return returned(node, text);
      case "Conditional":
        return branches(node, text, edit);
      case "Literal":
        return literal(node, text, edit);
      case "ModifierInvocation":
        return node["kind"] === "modifierInvocation" ? [edit("modifier removed", "")] : [];
      case "MemberAccess":
        return text() === "msg.sender" ? [edit("caller", "address(this)")] : [];
      default:
        return [];
    }
  });
}

/** All nodes in which code runs; what is fixed before, as types and hashes of types, is left alone. */
function* nodesIn(value: unknown): Generator<Node> {
  if (Array.isArray(value)) {
    for (const each of value) yield* nodesIn(each);
  } else if (typeof value === "object" && value !== null) {
    const node = value as Node;
    const type = node.nodeType as string | undefined;
    if (type === "ElementaryTypeName" || type === "ArrayTypeName" || type === "Mapping") return;
    if (type === "InlineAssembly" || type === "UserDefinedTypeName") return;
    if (type && node.src) yield node;
    for (const child of Object.values(node)) yield* nodesIn(child);
  }
}

type Text = (from?: number, to?: number) => string;
type MakeEdit = (operator: string, replacement: string) => Edit;

const placeOf = (node: unknown): [from: number, to: number] => {
  const [start, length] = (node as Node).src.split(":").map(Number) as [number, number];
  return [start, start + length];
};

/** The operator stands somewhere between the operands. */
function swaps(node: Node, text: Text): Edit[] {
  const [left, right] = [
    node["leftExpression"] ?? node["leftHandSide"],
    node["rightExpression"] ?? node["rightHandSide"],
  ];
  const operator = node["operator"] as string;
  const [from, to] = [placeOf(left)[1], placeOf(right)[0]];
  const start = from + Buffer.byteLength(text(from, to).slice(0, text(from, to).indexOf(operator)));
  return (SWAPS[operator] ?? []).map((replacement) => ({
    operator: `${operator} → ${replacement}`,
    start,
    length: operator.length,
    replacement,
  }));
}

const operandOf = (node: Node, text: Text): string => text(...placeOf(node["subExpression"]));

/** A condition is turned; a check, which only reverts, is removed too. */
function conditionOf(node: Node, text: Text, removal: (operator: string) => Edit): Edit[] {
  const [from, to] = placeOf(node["condition"]);
  const turned = { operator: "condition turned", start: from, length: to - from, replacement: `!(${text(from, to)})` };
  const body = node["trueBody"] as Node & { statements?: Node[] };
  const only = body.nodeType === "Block" && body.statements?.length === 1 ? body.statements[0]! : body;
  const isCheck = only.nodeType === "RevertStatement" && !node["falseBody"];
  return [
    turned,
    isCheck ? removal("check removed") : { ...turned, operator: "condition false", replacement: "false" },
  ];
}

function kindOf(statement: Node): string {
  const expression = statement["expression"] as Node;
  return { Assignment: "assignment", FunctionCall: "call" }[expression.nodeType] ?? "statement";
}

function returned(node: Node, text: Text): Edit[] {
  const expression = node["expression"] as (Node & { typeDescriptions?: { typeString?: string } }) | null;
  if (!expression) return [];
  const [start, to] = placeOf(expression);
  const type = expression.typeDescriptions?.typeString ?? "";
  const value = text(start, to);
  const other =
    type === "bool"
      ? `!(${value})`
      : type.startsWith("uint")
        ? `(${value}) + 1`
        : type === "address"
          ? "address(0)"
          : type === "bytes32"
            ? "bytes32(0)"
            : undefined;
  return other ? [{ operator: "other result", start, length: to - start, replacement: other }] : [];
}

function branches(node: Node, text: Text, edit: MakeEdit): Edit[] {
  const of = (name: string): string => text(...placeOf(node[name]));
  return [edit("branches swapped", `${of("condition")} ? ${of("falseExpression")} : ${of("trueExpression")}`)];
}

function literal(node: Node, text: Text, edit: MakeEdit): Edit[] {
  if (node["kind"] === "bool") return [edit("constant", node["value"] === "true" ? "false" : "true")];
  if (node["kind"] !== "number" || node["subdenomination"] || !/^\d+$/.test(text())) return [];
  const value = BigInt(text());
  return [value + 1n, ...(value > 0n ? [value - 1n] : [])].map((other) => edit("constant", String(other)));
}

/** A source with one edit made. */
export function applied(source: string, { start, length, replacement }: Edit): string {
  const bytes = Buffer.from(source);
  return Buffer.concat([bytes.subarray(0, start), Buffer.from(replacement), bytes.subarray(start + length)]).toString();
}
