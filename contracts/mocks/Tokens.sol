// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

import {IEscrow} from "../interfaces/IEscrow.sol";

/// @title A token with as many decimals as asked for. Anyone may mint.
contract TokenWithDecimals is ERC20 {
    uint8 private immutable _decimals;

    constructor(uint8 decimals_) ERC20("Decimals", "DEC") {
        _decimals = decimals_;
    }

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function decimals() public view override returns (uint8) {
        return _decimals;
    }
}

/// @title A token that keeps a part of every transfer, in percent
contract FeeToken is TokenWithDecimals {
    uint256 private immutable _percent;

    constructor(uint256 percent) TokenWithDecimals(6) {
        _percent = percent;
    }

    function _update(address from, address to, uint256 value) internal override {
        uint256 fee = from == address(0) || to == address(0) ? 0 : (value * _percent) / 100;
        if (fee != 0) super._update(from, address(0), fee);
        super._update(from, to, value - fee);
    }
}

/// @title A token whose transfers say false and move nothing
contract FalseToken is TokenWithDecimals {
    constructor() TokenWithDecimals(6) {}

    function transfer(address, uint256) public pure override returns (bool) {
        return false;
    }

    function transferFrom(address, address, uint256) public pure override returns (bool) {
        return false;
    }
}

/// @title A token whose transfers move money and return nothing, as USDT's
contract SilentToken {
    uint8 public constant decimals = 6;

    mapping(address account => uint256) public balanceOf;

    function mint(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }

    function transfer(address to, uint256 amount) external {
        _move(msg.sender, to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) external {
        _move(from, to, amount);
    }

    function _move(address from, address to, uint256 amount) private {
        balanceOf[from] -= amount;
        balanceOf[to] += amount;
    }
}

/// @title A token that calls back into the escrow during a transfer
contract ReentrantToken is TokenWithDecimals {
    IEscrow private immutable _escrow;
    bytes private _call;

    constructor(IEscrow escrow) TokenWithDecimals(6) {
        _escrow = escrow;
    }

    /// @notice Sets what the next transfers call the escrow with; empty for nothing.
    function setCall(bytes calldata call) external {
        _call = call;
    }

    function _update(address from, address to, uint256 value) internal override {
        super._update(from, to, value);
        if (_call.length == 0) return;
        (bool success, bytes memory answer) = address(_escrow).call(_call);
        if (success) return;
        assembly ("memory-safe") {
            revert(add(answer, 0x20), mload(answer))
        }
    }
}

/// @title A contract whose decimals() answers with bytes of choice
contract OddDecimals {
    bytes private _answer;

    constructor(bytes memory answer) {
        _answer = answer;
    }

    function decimals() external view {
        bytes memory answer = _answer;
        assembly ("memory-safe") {
            return(add(answer, 0x20), mload(answer))
        }
    }
}
