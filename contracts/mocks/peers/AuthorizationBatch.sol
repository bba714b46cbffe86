// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {TestUSD} from "../TestUSD.sol";

/// @notice One EIP-3009 authorization; all of a batch hold from the beginning.
struct Authorization {
    address from;
    address to;
    uint256 value;
    uint256 validBefore;
    bytes32 nonce;
    bytes32 r;
    bytes32 s;
    uint8 v;
}

/// @title Many EIP-3009 transfers in one transaction, as a facilitator could send them
contract AuthorizationBatch {
    TestUSD private immutable _token;

    constructor(TestUSD token) {
        _token = token;
    }

    function transfer(Authorization[] calldata all) external {
        for (uint256 i = 0; i < all.length; ++i) {
            Authorization calldata one = all[i];
            _token.transferWithAuthorization(
                one.from,
                one.to,
                one.value,
                0,
                one.validBefore,
                one.nonce,
                one.v,
                one.r,
                one.s
            );
        }
    }
}
