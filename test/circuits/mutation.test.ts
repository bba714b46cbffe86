import { expect } from "chai";

import { ATTACKS, IMPLIED, signalsOf, type Attack } from "./attacks.ts";
import type { System } from "./completion.ts";
import { constraintStatements, INSTANCES, removedBy, trueSystem, type Instance } from "./mutants.ts";

describe("Each constraint of the circuits", function () {
  this.timeout(300_000);
  const systems = new Map<Instance, System>();

  before(async () => {
    for (const instance of Object.keys(INSTANCES) as Instance[]) systems.set(instance, await trueSystem(instance));
  });

  /** Inputs and forged signals of an attack. */
  function given({ instance, input, forged }: Attack): [Map<string, bigint>, Map<string, bigint>] {
    const inputs = signalsOf(input);
    const isComputed = Object.values(forged).some((value) => typeof value === "function");
    const honest = isComputed ? systems.get(instance)!.complete(inputs) : undefined;
    const values = Object.entries(forged).map(
      ([name, value]) => [name, typeof value === "bigint" ? value : value(honest!.signal(name))] as const,
    );
    return [inputs, new Map(values)];
  }

  const implied = ({ file, text }: { file: string; text: string }): boolean =>
    IMPLIED.some((one) => one.file === file && one.statement === text);

  for (const statement of constraintStatements().filter((one) => !implied(one))) {
    const attacks = ATTACKS.filter(({ file, statement: text }) => file === statement.file && text === statement.text);

    it(`stands alone against its forged witness: ${statement.file}:${statement.line} ${statement.text}`, async () => {
      expect(attacks, "attacks").not.to.have.length(0);
      for (const attack of attacks) {
        const system = systems.get(attack.instance)!;
        const [inputs, forged] = given(attack);
        const { accepted, contradictions } = system.complete(inputs, forged);
        expect(accepted, `${attack.claim}: accepted`).to.equal(false);
        expect(contradictions, `${attack.claim}: what refuses it`).not.to.have.length(0);
        const removed = await removedBy(system, attack.instance, statement);
        const weakened = system.completeWithout(removed, inputs, forged);
        expect(weakened.accepted, `${attack.claim}: accepted by the mutant`).to.equal(true);
      }
    });
  }

  it("is attacked, or implied by others, and nothing else is", () => {
    const name = ({ file, text }: { file: string; text: string }): string => `${file} ${text}`;
    const known = [...ATTACKS, ...IMPLIED].map(({ file, statement }) => name({ file, text: statement }));
    expect(new Set(known)).to.deep.equal(new Set(constraintStatements().map(name)));
  });
});
