// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {Takings} from "./Takings.sol";

/// @notice The latest voucher of a channel: `payer` owes its payee `total` in all.
struct Voucher {
    address payer;
    uint128 total;
    bytes32 r;
    bytes32 vs;
}

/// @notice The vouchers of one payee, which is credited once for all of them.
struct Claim {
    address payee;
    Voucher[] vouchers;
}

/// @title The least that a channel for each pair of payer and payee needs
/// @notice No withdrawal for payers, no event for a channel, nobody who must agree to a claim: what it leaves out makes it
/// cheaper than one for use.
contract LeanChannels is EIP712, Takings {
    struct Channel {
        uint128 deposited;
        uint128 claimed;
    }

    bytes32 private constant VOUCHER_TYPEHASH = keccak256("Voucher(address payer,address payee,uint128 total)");

    mapping(address payer => mapping(address payee => Channel)) public channels;

    event Claimed(address indexed payee, uint256 amount);

    error AboveDeposit(uint256 total, uint256 deposited);
    error NothingNew(uint256 total, uint256 claimed);
    error WrongSigner(address payer, address recovered);

    constructor(IERC20 token_) EIP712("Lean Channels", "1") Takings(token_) {}

    function deposit(address payee, uint128 amount) external {
        channels[msg.sender][payee].deposited += amount;
        _pull(amount);
    }

    function claim(Claim[] calldata claims) external {
        for (uint256 i = 0; i < claims.length; ++i) {
            Claim calldata one = claims[i];
            uint128 sum = 0;
            for (uint256 j = 0; j < one.vouchers.length; ++j) {
                sum += _redeem(one.payee, one.vouchers[j]);
            }
            takingsOf[one.payee].total += sum;
            emit Claimed(one.payee, sum);
        }
    }

    function _redeem(address payee, Voucher calldata voucher) private returns (uint128 amount) {
        Channel memory channel = channels[voucher.payer][payee];
        if (voucher.total <= channel.claimed) revert NothingNew(voucher.total, channel.claimed);
        if (voucher.total > channel.deposited) revert AboveDeposit(voucher.total, channel.deposited);
        bytes32 structHash = keccak256(abi.encode(VOUCHER_TYPEHASH, voucher.payer, payee, voucher.total));
        address recovered = ECDSA.recover(_hashTypedDataV4(structHash), voucher.r, voucher.vs);
        if (recovered != voucher.payer) revert WrongSigner(voucher.payer, recovered);

        amount = voucher.total - channel.claimed;
        channels[voucher.payer][payee].claimed = voucher.total;
    }
}
