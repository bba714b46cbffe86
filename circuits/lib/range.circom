// SPDX-License-Identifier: GPL-3.0-only
pragma circom 2.2.3;

include "bitify.circom";

// 0 <= in < 2^n.
template InRange(n) {
    signal input in;

    component bits = Num2Bits(n);
    bits.in <== in;
}
