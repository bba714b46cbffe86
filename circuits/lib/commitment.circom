// SPDX-License-Identifier: GPL-3.0-only
pragma circom 2.2.3;

include "poseidon.circom";

// One field element that binds n: Poseidon over the first 16, then over the result and 15 more at a time. The number of
// elements is the circuit's, so no two streams of different length are ever compared.
template Commitment(n) {
    signal input in[n];
    signal output out;

    var first = n < 16 ? n : 16;
    var more = (n - first + 14) \ 15;
    component head = Poseidon(first);
    for (var i = 0; i < first; i++) {
        head.inputs[i] <== in[i];
    }
    component next[more];
    var digest = head.out;
    var at = first;
    for (var m = 0; m < more; m++) {
        var width = n - at < 15 ? n - at : 15;
        next[m] = Poseidon(1 + width);
        next[m].inputs[0] <== digest;
        for (var i = 0; i < width; i++) {
            next[m].inputs[1 + i] <== in[at + i];
        }
        digest = next[m].out;
        at += width;
    }
    out <== digest;
}

// Amounts of 40 bits, six to an element, the first lowest; the last element is filled with zeros.
template PackAmounts(n) {
    signal input amount[n];
    signal output out[(n + 5) \ 6];

    for (var m = 0; m < (n + 5) \ 6; m++) {
        var packed = 0;
        for (var i = 0; i < 6 && 6 * m + i < n; i++) {
            packed += amount[6 * m + i] * (1 << (40 * i));
        }
        out[m] <== packed;
    }
}
