// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Address} from "@openzeppelin/contracts/utils/Address.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {IArbitrable} from "../interfaces/IArbitrable.sol";
import {IArbitrator} from "../interfaces/IArbitrator.sol";

/// @title Arbiters with a bond
/// @notice A fixed list of arbiters, each of whom rules alone over what falls to it in rotation. An arbiter takes as many
/// disputes at a time as its bond has stakes. One that gives no ruling in time loses that dispute's stake to whoever
/// paid for it, together with the fee. A bond leaves only after a notice, when no dispute of its arbiter is open.
///
/// `extraData` is empty or abi.encode(address arbiter, address payer): the zero address as arbiter means the rotation, and
/// `payer` gets fee and stake of a missed ruling; without it the calling contract does. Everything is paid by {withdraw}.
/// The list is fixed, since anybody who could join could rule in his own case.
contract BondedArbiter is IArbitrator, ReentrancyGuardTransient {
    struct Arbiter {
        bool listed;
        uint128 bond;
        uint64 open;
        /// When the bond may leave, or 0: until then it takes no disputes.
        uint40 leavesAt;
    }

    struct Case {
        IArbitrable arbitrable;
        DisputeStatus status;
        uint256 choices;
        uint256 ruling;
        address arbiter;
        uint40 deadline;
        address payer;
    }

    uint256 public constant MAX_ARBITERS = 16;
    uint256 public constant NOTICE = 7 days;
    /// @notice What a contract may burn while it takes a ruling; {deliver} gives it more.
    uint256 public constant RULE_GAS = 500_000;

    /// @notice What a dispute costs, for its arbiter.
    uint256 public immutable fee;
    /// @notice The part of a bond that stands behind one dispute.
    uint256 public immutable stake;
    /// @notice Seconds to rule.
    uint40 public immutable ruleWithin;

    uint256 public caseCount;
    /// @notice What an account can {withdraw}.
    mapping(address account => uint256) public owedTo;

    address[] private _list;
    uint256 private _next;
    mapping(address account => Arbiter) private _arbiters;
    mapping(uint256 disputeID => Case) private _cases;

    event BondPosted(address indexed arbiter, uint256 amount, uint256 bond);
    event NoticeGiven(address indexed arbiter, uint256 leavesAt);
    event BondReturned(address indexed arbiter, uint256 amount);
    event Assigned(uint256 indexed disputeID, address indexed arbiter, uint256 deadline);
    /// @notice `delivered` is false if the contract did not take the ruling; {deliver} tries again.
    event Ruled(uint256 indexed disputeID, address indexed arbiter, uint256 ruling, bool delivered);
    event Expired(uint256 indexed disputeID, address indexed arbiter, address indexed payer, uint256 forfeited);
    event Withdrawn(address indexed account, address indexed to, uint256 amount);

    error ArbiterCountOutOfRange(uint256 count, uint256 limit);
    error ListedTwice(address arbiter);
    error ZeroStake();
    error RuleWithinOutOfRange(uint256 value, uint256 minimum, uint256 maximum);
    error OnlyArbiter(address caller);
    error ZeroBond();
    error NoNotice(address arbiter);
    error NoticeNotOver(address arbiter, uint256 time, uint256 leavesAt);
    error DisputesOpen(address arbiter, uint256 open);
    error WrongFee(uint256 value, uint256 cost);
    error MalformedExtraData(uint256 length);
    /// @notice No arbiter has a stake left, or the named one has none.
    error NoArbiter(address named);
    error UnknownCase(uint256 disputeID);
    error NotWaiting(uint256 disputeID, DisputeStatus status);
    error NotSolved(uint256 disputeID, DisputeStatus status);
    error OnlyAssigned(address caller, address arbiter);
    error RulingOutOfRange(uint256 ruling, uint256 choices);
    error RulingTooLate(uint256 disputeID, uint256 time, uint256 deadline);
    error RulingNotDue(uint256 disputeID, uint256 time, uint256 deadline);
    /// @notice The contract might not get {RULE_GAS}.
    error TooLittleGas(uint256 left, uint256 needed);
    error NothingOwed(address account);

    constructor(address[] memory arbiters_, uint256 fee_, uint256 stake_, uint40 ruleWithin_) {
        if (arbiters_.length == 0 || arbiters_.length > MAX_ARBITERS) {
            revert ArbiterCountOutOfRange(arbiters_.length, MAX_ARBITERS);
        }
        if (stake_ == 0) revert ZeroStake();
        if (ruleWithin_ < 1 hours || ruleWithin_ > 14 days) {
            revert RuleWithinOutOfRange(ruleWithin_, 1 hours, 14 days);
        }
        for (uint256 i = 0; i < arbiters_.length; ++i) {
            if (_arbiters[arbiters_[i]].listed) revert ListedTwice(arbiters_[i]);
            _arbiters[arbiters_[i]].listed = true;
        }
        _list = arbiters_;
        fee = fee_;
        stake = stake_;
        ruleWithin = ruleWithin_;
    }

    /// @notice Adds to the caller's bond, and takes back its notice.
    function postBond() external payable {
        Arbiter storage arbiter = _arbiters[msg.sender];
        if (!arbiter.listed) revert OnlyArbiter(msg.sender);
        if (msg.value == 0) revert ZeroBond();
        arbiter.bond += uint128(msg.value);
        arbiter.leavesAt = 0;
        emit BondPosted(msg.sender, msg.value, arbiter.bond);
    }

    /// @notice The caller takes no new disputes, and may take its bond back after {NOTICE}.
    function giveNotice() external {
        Arbiter storage arbiter = _arbiters[msg.sender];
        if (arbiter.bond == 0) revert ZeroBond();
        if (arbiter.leavesAt == 0) arbiter.leavesAt = uint40(block.timestamp + NOTICE);
        emit NoticeGiven(msg.sender, arbiter.leavesAt);
    }

    /// @notice Moves the caller's bond to what it can {withdraw}.
    function takeBond() external {
        Arbiter storage arbiter = _arbiters[msg.sender];
        uint256 amount = arbiter.bond;
        if (arbiter.leavesAt == 0) revert NoNotice(msg.sender);
        if (block.timestamp < arbiter.leavesAt) revert NoticeNotOver(msg.sender, block.timestamp, arbiter.leavesAt);
        if (arbiter.open > 0) revert DisputesOpen(msg.sender, arbiter.open);
        (arbiter.bond, arbiter.leavesAt) = (0, 0);
        owedTo[msg.sender] += amount;
        emit BondReturned(msg.sender, amount);
    }

    /// @inheritdoc IArbitrator
    function createDispute(uint256 choices, bytes calldata extraData) external payable returns (uint256 disputeID) {
        if (msg.value != fee) revert WrongFee(msg.value, fee);
        (address named, address payer) = _decode(extraData);
        address arbiter = _assign(named);
        ++_arbiters[arbiter].open;
        disputeID = ++caseCount;
        uint40 deadline = uint40(block.timestamp) + ruleWithin;
        IArbitrable arbitrable = IArbitrable(msg.sender);
        _cases[disputeID] = Case(arbitrable, DisputeStatus.Waiting, choices, 0, arbiter, deadline, payer);
        emit DisputeCreation(disputeID, arbitrable);
        emit Assigned(disputeID, arbiter, deadline);
    }

    /// @notice Gives the ruling, by the dispute's arbiter, which earns the fee. 0 means that it does not decide.
    function giveRuling(uint256 disputeID, uint256 ruling) external nonReentrant {
        Case storage one = _waiting(disputeID);
        if (msg.sender != one.arbiter) revert OnlyAssigned(msg.sender, one.arbiter);
        if (ruling > one.choices) revert RulingOutOfRange(ruling, one.choices);
        if (block.timestamp > one.deadline) revert RulingTooLate(disputeID, block.timestamp, one.deadline);
        owedTo[msg.sender] += fee;
        _solve(disputeID, one, ruling);
    }

    /// @notice Ends a dispute whose arbiter is late: the ruling is 0, fee and stake go to who paid. Anyone may call it.
    function expire(uint256 disputeID) external nonReentrant {
        Case storage one = _waiting(disputeID);
        if (block.timestamp <= one.deadline) revert RulingNotDue(disputeID, block.timestamp, one.deadline);
        // An arbiter takes no dispute without a stake, and no bond leaves before its disputes end.
        _arbiters[one.arbiter].bond -= uint128(stake);
        owedTo[one.payer] += fee + stake;
        emit Expired(disputeID, one.arbiter, one.payer, stake);
        _solve(disputeID, one, 0);
    }

    /// @notice Gives a ruling to its contract again, should it not have taken it. Anyone may call it.
    function deliver(uint256 disputeID) external nonReentrant {
        Case storage one = _cases[disputeID];
        if (one.status != DisputeStatus.Solved) revert NotSolved(disputeID, one.status);
        one.arbitrable.rule(disputeID, one.ruling);
    }

    /// @notice Pays what the caller is owed.
    function withdraw(address payable to) external nonReentrant {
        uint256 amount = owedTo[msg.sender];
        if (amount == 0) revert NothingOwed(msg.sender);
        owedTo[msg.sender] = 0;
        emit Withdrawn(msg.sender, to, amount);
        Address.sendValue(to, amount);
    }

    /// @inheritdoc IArbitrator
    function arbitrationCost(bytes calldata) external view returns (uint256) {
        return fee;
    }

    /// @inheritdoc IArbitrator
    function disputeStatus(uint256 disputeID) external view returns (DisputeStatus) {
        return caseOf(disputeID).status;
    }

    /// @inheritdoc IArbitrator
    function currentRuling(uint256 disputeID) external view returns (uint256) {
        return caseOf(disputeID).ruling;
    }

    function arbiterOf(address account) external view returns (Arbiter memory) {
        return _arbiters[account];
    }

    /// @notice All that may rule, in the order of the rotation.
    function arbiters() external view returns (address[] memory) {
        return _list;
    }

    function caseOf(uint256 disputeID) public view returns (Case memory one) {
        one = _cases[disputeID];
        if (one.arbiter == address(0)) revert UnknownCase(disputeID);
    }

    /// @dev The contract's answer does not matter to the arbiter: its fee is earned, and {deliver} tries again.
    function _solve(uint256 disputeID, Case storage one, uint256 ruling) private {
        (one.status, one.ruling) = (DisputeStatus.Solved, ruling);
        --_arbiters[one.arbiter].open;
        _requireRuleGas(gasleft());
        // Not a `try`, which reverts for an address without code and so would leave the dispute open for ever.
        // solhint-disable-next-line avoid-low-level-calls
        (bool delivered, ) = address(one.arbitrable).call{gas: RULE_GAS}(
            abi.encodeCall(IArbitrable.rule, (disputeID, ruling))
        );
        emit Ruled(disputeID, one.arbiter, ruling, delivered);
    }

    /// @dev Who sends a ruling with less could keep it from the contract until the deadline there is over; so would every
    /// estimate of the gas.
    function _requireRuleGas(uint256 left) private pure {
        uint256 needed = RULE_GAS + RULE_GAS / 32 + 10_000;
        if (left < needed) revert TooLittleGas(left, needed);
    }

    /// @dev The named arbiter, or the next in rotation with a stake left.
    function _assign(address named) private returns (address) {
        if (named != address(0)) {
            if (!_isFree(named)) revert NoArbiter(named);
            return named;
        }
        uint256 count = _list.length;
        for (uint256 i = 0; i < count; ++i) {
            uint256 index = (_next + i) % count;
            if (!_isFree(_list[index])) continue;
            _next = index + 1;
            return _list[index];
        }
        revert NoArbiter(named);
    }

    function _isFree(address account) private view returns (bool) {
        Arbiter storage arbiter = _arbiters[account];
        return arbiter.leavesAt == 0 && arbiter.bond >= stake * (uint256(arbiter.open) + 1);
    }

    function _waiting(uint256 disputeID) private view returns (Case storage one) {
        one = _cases[disputeID];
        if (one.arbiter == address(0)) revert UnknownCase(disputeID);
        if (one.status != DisputeStatus.Waiting) revert NotWaiting(disputeID, one.status);
    }

    function _decode(bytes calldata extraData) private view returns (address named, address payer) {
        if (extraData.length == 0) return (address(0), msg.sender);
        if (extraData.length != 64) revert MalformedExtraData(extraData.length);
        (named, payer) = abi.decode(extraData, (address, address));
        if (payer == address(0)) payer = msg.sender;
    }
}
