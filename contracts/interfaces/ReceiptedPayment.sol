// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Line} from "./Messages.sol";

/// @notice A payment that its agent signed and its processor gave a receipt for: what a payee keeps, in one piece.
/// @dev The `Payment` is (seq, spent, head, line); the `Receipt` repeats agent, seq, payee, amount, ref and head.
// In the order in which it is signed; never stored.
// solhint-disable-next-line gas-struct-packing
struct ReceiptedPayment {
    address agent;
    uint64 seq;
    uint64 spent;
    bytes32 head;
    Line line;
    uint64 settleBy;
    uint64 logIndex;
    /// The agent's over the payment: 65 bytes.
    bytes agentSignature;
    /// The processor's receipt key's over the receipt: 65 bytes.
    bytes processorSignature;
    /// The mandate's payees as its owner signed them.
    address[] payees;
}
