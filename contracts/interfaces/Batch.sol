// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice One mandate's part of a batch: it moves the mandate `count` payments and `debit` units forward.
struct Row {
    address agent;
    /// Newly settled payments, at least one.
    uint32 count;
    /// Their total, in units.
    uint64 debit;
    /// Hash of the last page with its lines up to the last settled payment.
    uint256 head;
    /// `head` if the last page is full, else the hash of the page before it: the mandate's next `base`.
    uint256 newBase;
    /// EIP-712 struct hash of the last settled payment's line.
    bytes32 lineHash;
    /// The agent's signature over that payment: s in the lower half order, v 27 or 28.
    bytes32 r;
    bytes32 s;
    uint8 v;
}

/// @notice One payee's part of a batch, in units.
struct Credit {
    address payee;
    uint64 amount;
}
