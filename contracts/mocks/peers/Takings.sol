// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title What payees have taken in and what of it they were paid out: the part that the peers share
/// @dev Both totals stand in one slot that never returns to zero: crediting a payee again costs no new slot.
abstract contract Takings {
    using SafeERC20 for IERC20;

    struct Taken {
        uint128 total;
        uint128 paidOut;
    }

    IERC20 public immutable token;
    mapping(address payee => Taken) public takingsOf;

    event PaidOut(address indexed payee, uint256 amount);

    constructor(IERC20 token_) {
        token = token_;
    }

    /// @notice Pays `payee` all that it took in since it was last paid. Anyone may call it.
    function payOut(address payee) external {
        Taken memory taken = takingsOf[payee];
        takingsOf[payee].paidOut = taken.total;
        emit PaidOut(payee, taken.total - taken.paidOut);
        token.safeTransfer(payee, taken.total - taken.paidOut);
    }

    function _pull(uint256 amount) internal {
        token.safeTransferFrom(msg.sender, address(this), amount);
    }
}
