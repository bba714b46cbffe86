// SPDX-License-Identifier: GPL-3.0-only
pragma circom 2.2.3;

include "comparators.circom";
include "poseidon.circom";
include "range.circom";

// What a mandate allows: its root, whether anyone may be paid, and that its cap has 40 bits.
template Policy() {
    signal input allow[8];
    signal input cap;
    // Poseidon(allow_0 … allow_7, cap).
    signal output root;
    // 1 if only the payees in allow may be paid, 0 if allow_0 = 0: anyone.
    signal output restricted;

    component hash = Poseidon(9);
    for (var k = 0; k < 8; k++) {
        hash.inputs[k] <== allow[k];
    }
    hash.inputs[8] <== cap;
    root <== hash.out;

    component open = IsZero();
    open.in <== allow[0];
    restricted <== 1 - open.out;

    component capRange = InRange(40);
    capRange.in <== cap;
}

// A payee is in the list, or the list is open: (payee·restricted − allow_0)·Π_{k>0} (payee − allow_k) = 0. In an open
// list allow_0 = 0 and restricted = 0, so the first factor vanishes whoever the payee is; in a restricted one it is
// payee − allow_0.
template Allowed() {
    signal input payee;
    signal input allow[8];
    signal input restricted;

    signal product[7];
    product[0] <== payee * restricted - allow[0];
    for (var k = 1; k < 7; k++) {
        product[k] <== product[k - 1] * (payee - allow[k]);
    }
    product[6] * (payee - allow[7]) === 0;
}
