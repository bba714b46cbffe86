// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Delivery, Purchase, Quote} from "../interfaces/IDisputeModule.sol";
import {TypedHashes} from "./TypedHashes.sol";

/// @title EIP-712 struct hashes of what a dispute is about
/// @dev In the same domain as {TypedHashes}.
library PurchaseHashes {
    bytes32 internal constant QUOTE_TYPEHASH = keccak256(
        "Quote(address payee,uint40 amount,bytes32 ref,string host,string category,uint64 expiresAt)"
    );
    bytes32 internal constant DELIVERY_TYPEHASH = keccak256(
        "Delivery(address agent,uint64 seq,bytes32 ref,bytes32 bodyHash,uint64 deliveredAt)"
    );

    /// @notice The agent's `Payment`, put together from its receipt and the running total.
    function hashPayment(Purchase calldata purchase) internal pure returns (bytes32) {
        bytes32 lineHash = keccak256(
            abi.encode(TypedHashes.LINE_TYPEHASH, purchase.receipt.payee, purchase.receipt.amount, purchase.receipt.ref)
        );
        return TypedHashes.hashPayment(purchase.receipt.seq, purchase.spent, uint256(purchase.receipt.head), lineHash);
    }

    function hashQuote(Quote calldata quote) internal pure returns (bytes32) {
        return
            keccak256(
                abi.encode(
                    QUOTE_TYPEHASH,
                    quote.payee,
                    quote.amount,
                    quote.ref,
                    keccak256(bytes(quote.host)),
                    keccak256(bytes(quote.category)),
                    quote.expiresAt
                )
            );
    }

    function hashDelivery(Delivery calldata delivery) internal pure returns (bytes32) {
        return keccak256(abi.encode(DELIVERY_TYPEHASH, delivery));
    }
}
