// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice The owner's one signed permission; its agent's address identifies it.
/// @dev Amounts in units (`unitScale(token)` base units each), times in Unix seconds.
struct Mandate {
    /// Whose money it is: an EOA or an ERC-1271 account.
    address owner;
    /// A fresh session key (an EOA address), never used by another mandate.
    address agent;
    address token;
    /// The most that all payments together may debit.
    uint64 budget;
    /// The most that one payment may be: 1 … budget, below 2^40.
    uint40 paymentCap;
    /// The last second in which the agent may pay.
    uint64 validUntil;
    /// The only account that may settle this mandate.
    address processor;
    /// Who may be paid, at most eight; empty means anyone.
    address[] payees;
    /// Poseidon of the same list and paymentCap, below the field order. The agreement of the two is checked off chain.
    bytes32 policyRoot;
    /// Hash of the terms that only the processor enforces.
    bytes32 termsHash;
}

/// @notice One line of the agent's ledger: what one payment pays.
struct Line {
    address payee;
    /// Units, 1 … 2^40−1.
    uint40 amount;
    /// Binds what is bought.
    bytes32 ref;
}

/// @notice The processor's signed promise to settle a payment by a time.
struct Receipt {
    address agent;
    uint64 seq;
    address payee;
    uint40 amount;
    bytes32 ref;
    bytes32 head;
    uint64 settleBy;
    uint64 logIndex;
}
