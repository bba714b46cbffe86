// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IIdentityGate} from "../interfaces/IIdentityGate.sol";

/// @title An identity gate that answers as it is told, and that may change its mind
contract MoodyGate is IIdentityGate {
    enum Answer {
        Agrees,
        Refuses,
        Reverts,
        BurnsGas,
        ReturnsBomb,
        RevertsBomb,
        ReturnsTwo,
        ReturnsDirty,
        ReturnsShort,
        ReturnsNothing,
        AgreesAtLength
    }

    uint256 private constant BOMB = 200_000;

    Answer public onOpen;
    Answer public onPayee;

    error NotToday();

    /// @notice Sets how it answers for owners and for payees.
    function set(Answer onOpen_, Answer onPayee_) external {
        onOpen = onOpen_;
        onPayee = onPayee_;
    }

    function mayOpen(address, address, address, uint64) external view returns (bool) {
        return _answer(onOpen);
    }

    function mayBePaid(address, address) external view returns (bool) {
        return _answer(onPayee);
    }

    function supportsInterface(bytes4) external pure returns (bool) {
        return true;
    }

    function _answer(Answer answer) private pure returns (bool) {
        if (answer == Answer.Reverts) revert NotToday();
        if (answer == Answer.BurnsGas) while (true) {}
        if (answer == Answer.ReturnsBomb) _return(0, BOMB);
        if (answer == Answer.RevertsBomb) _revert(1, BOMB);
        if (answer == Answer.ReturnsTwo) _return(2, 32);
        if (answer == Answer.ReturnsDirty) _return((1 << 255) | 1, 32);
        if (answer == Answer.ReturnsShort) _return(1 << 8, 31);
        if (answer == Answer.ReturnsNothing) _return(0, 0);
        if (answer == Answer.AgreesAtLength) _return(1, BOMB);
        return answer == Answer.Agrees;
    }

    function _return(uint256 word, uint256 length) private pure {
        assembly ("memory-safe") {
            let answer := mload(0x40)
            mstore(answer, word)
            return(answer, length)
        }
    }

    function _revert(uint256 word, uint256 length) private pure {
        assembly ("memory-safe") {
            let answer := mload(0x40)
            mstore(answer, word)
            revert(answer, length)
        }
    }
}
