// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

/// @notice What a channel is, for good; its hash names it.
struct ChannelTerms {
    address payer;
    address payerSigner;
    address payee;
    address payeeSigner;
    address token;
    uint40 withdrawDelay;
    bytes32 salt;
}

/// @notice A channel's latest voucher, up to `ceiling`, and the `total` that its payee takes of it.
struct Redemption {
    ChannelTerms terms;
    uint128 ceiling;
    uint128 total;
    bytes signature;
}

/// @title Channels in the shape of x402's `batch-settlement`
/// @notice A channel is known by the hash of its terms, which every claim brings along; both sides sign through keys of
/// their own; claims only count, a token transfer for each payee settles them. Smart-account signatures, refunds and
/// withdrawals are left out: they cost a claim nothing.
contract ConfiguredChannels is EIP712 {
    using SafeERC20 for IERC20;

    struct Channel {
        uint128 deposited;
        uint128 claimed;
    }
    struct Takings {
        uint128 claimed;
        uint128 settled;
    }

    bytes32 private constant TERMS_TYPEHASH = keccak256(
        "ChannelTerms(address payer,address payerSigner,address payee,address payeeSigner,address token,"
        "uint40 withdrawDelay,bytes32 salt)"
    );
    bytes32 private constant VOUCHER_TYPEHASH = keccak256("Voucher(bytes32 channelId,uint128 ceiling)");

    mapping(bytes32 channelId => Channel) public channels;
    mapping(address payee => mapping(address token => Takings)) public takingsOf;

    event Claimed(bytes32 indexed channelId, address indexed caller, uint128 amount, uint128 total);
    event Settled(address indexed payee, address indexed token, address indexed caller, uint128 amount);

    error AboveCeiling(uint256 total, uint256 ceiling);
    error AboveDeposit(uint256 total, uint256 deposited);
    error NotPayeeSide(address caller);
    error WrongSigner(address signer, address recovered);

    constructor() EIP712("Configured Channels", "1") {}

    function deposit(ChannelTerms calldata terms, uint128 amount) external {
        channels[idOf(terms)].deposited += amount;
        IERC20(terms.token).safeTransferFrom(msg.sender, address(this), amount);
    }

    /// @notice Counts vouchers of many channels, whose payees or payees' signer the caller must be.
    function claim(Redemption[] calldata redemptions) external {
        for (uint256 i = 0; i < redemptions.length; ++i) {
            ChannelTerms calldata terms = redemptions[i].terms;
            if (msg.sender != terms.payeeSigner && msg.sender != terms.payee) revert NotPayeeSide(msg.sender);
            _redeem(redemptions[i]);
        }
    }

    /// @notice Pays `payee` all that was claimed for it since it was last paid. Anyone may call it.
    function settle(address payee, address token) external {
        Takings storage takings = takingsOf[payee][token];
        uint128 amount = takings.claimed - takings.settled;
        takings.settled = takings.claimed;
        emit Settled(payee, token, msg.sender, amount);
        IERC20(token).safeTransfer(payee, amount);
    }

    function idOf(ChannelTerms calldata terms) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(TERMS_TYPEHASH, terms)));
    }

    /// @dev A voucher that counted before changes nothing.
    function _redeem(Redemption calldata one) private {
        bytes32 channelId = idOf(one.terms);
        Channel memory channel = channels[channelId];
        if (one.total <= channel.claimed) return;
        if (one.total > one.ceiling) revert AboveCeiling(one.total, one.ceiling);
        if (one.total > channel.deposited) revert AboveDeposit(one.total, channel.deposited);
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(VOUCHER_TYPEHASH, channelId, one.ceiling)));
        address recovered = ECDSA.recoverCalldata(digest, one.signature);
        if (recovered != one.terms.payerSigner) revert WrongSigner(one.terms.payerSigner, recovered);

        uint128 amount = one.total - channel.claimed;
        channels[channelId].claimed = one.total;
        takingsOf[one.terms.payee][one.terms.token].claimed += amount;
        emit Claimed(channelId, msg.sender, amount, one.total);
    }
}
