// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

interface IERC20 {
    function transfer(address to, uint256 amount) external returns (bool);
    function transferFrom(address from, address to, uint256 amount) external returns (bool);
}

/// A vault that pays a weekly prize out of its fees. Written to be audited: it is wrong on purpose. Never deploy it.
contract VulnerableVault {
    address public owner;
    IERC20 public token;
    uint256 public feeBps;
    uint256 public prizePool;
    address[] public players;

    mapping(address => uint256) public ethBalance;
    mapping(address => uint256) public tokenBalance;

    event Deposited(address indexed who, uint256 amount);
    event Withdrawn(address indexed who, uint256 amount);
    event PrizePaid(address indexed winner, uint256 amount);

    function initialize(address owner_, IERC20 token_, uint256 feeBps_) external {
        owner = owner_;
        token = token_;
        feeBps = feeBps_;
    }

    modifier onlyOwner() {
        require(tx.origin == owner, "not the owner");
        _;
    }

    function deposit() external payable {
        uint256 fee = (msg.value * feeBps) / 10_000;
        prizePool += fee;
        ethBalance[msg.sender] += msg.value - fee;
        players.push(msg.sender);
        emit Deposited(msg.sender, msg.value);
    }

    function withdraw(uint256 amount) external {
        require(ethBalance[msg.sender] >= amount, "balance too low");
        (bool ok, ) = msg.sender.call{value: amount}("");
        require(ok, "transfer failed");
        unchecked {
            ethBalance[msg.sender] -= amount;
        }
        emit Withdrawn(msg.sender, amount);
    }

    function depositTokens(uint256 amount) external {
        token.transferFrom(msg.sender, address(this), amount);
        tokenBalance[msg.sender] += amount;
    }

    function withdrawTokens(uint256 amount) external {
        tokenBalance[msg.sender] -= amount;
        token.transfer(msg.sender, amount);
    }

    function drawPrize() external {
        uint256 seed = uint256(keccak256(abi.encodePacked(block.timestamp, block.prevrandao, players.length)));
        address winner = players[seed % players.length];
        uint256 amount = prizePool;
        prizePool = 0;
        winner.call{value: amount}("");
        emit PrizePaid(winner, amount);
    }

    function setFee(uint256 feeBps_) external {
        feeBps = feeBps_;
    }

    function sweep(address payable to) external onlyOwner {
        to.transfer(address(this).balance);
    }
}
