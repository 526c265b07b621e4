package capture

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// rule is the expressions of one nftables rule, or a part of one. Each match
// loads a value into register 1 and compares it there.
type rule []expr.Any

func join(parts ...rule) rule {
	var out rule
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func compare(op expr.CmpOp, data []byte) *expr.Cmp {
	return &expr.Cmp{Op: op, Register: 1, Data: data}
}

// metaNumber matches a 32-bit meta value; those are in the machine's byte order.
func metaNumber(key expr.MetaKey, v uint32) rule {
	return rule{&expr.Meta{Key: key, Register: 1}, compare(expr.CmpOpEq, binaryutil.NativeEndian.PutUint32(v))}
}

// interfaceName matches a name exactly: it is compared with its padding.
func interfaceName(key expr.MetaKey, op expr.CmpOp, name string) rule {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return rule{&expr.Meta{Key: key, Register: 1}, compare(op, padded)}
}

func protocol(proto byte) rule {
	return rule{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, compare(expr.CmpOpEq, []byte{proto})}
}

func destinationPort() *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
}

func bigEndian(port uint16) []byte { return binary.BigEndian.AppendUint16(nil, port) }

// toPort matches proto (IPPROTO_TCP or IPPROTO_UDP) to a port.
func toPort(proto byte, port uint16) rule {
	return join(protocol(proto), rule{destinationPort(), compare(expr.CmpOpEq, bigEndian(port))})
}

// toPorts matches TCP to a port of a range, or (CmpOpNeq) outside of it.
func toPorts(op expr.CmpOp, first, last uint16) rule {
	return join(protocol(unix.IPPROTO_TCP), rule{destinationPort(),
		&expr.Range{Op: op, Register: 1, FromData: bigEndian(first), ToData: bigEndian(last)}})
}

// Offsets of the addresses in the IPv4 and IPv6 headers.
func fromPrefix(p netip.Prefix) rule { return address(expr.CmpOpEq, p, 12, 8) }
func toPrefix(p netip.Prefix) rule   { return address(expr.CmpOpEq, p, 16, 24) }
func notToPrefix(p netip.Prefix) rule {
	return address(expr.CmpOpNeq, p, 16, 24)
}

// address matches packets of p's family whose address at the offset is in p
// (or, with CmpOpNeq, is not). In an inet table the family must be asked for:
// the offsets mean something else in the other one.
func address(op expr.CmpOp, p netip.Prefix, offset4, offset6 uint32) rule {
	family, offset := byte(unix.NFPROTO_IPV4), offset4
	if p.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, offset6
	}
	size := uint32(p.Addr().BitLen() / 8)
	return rule{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, compare(expr.CmpOpEq, []byte{family}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: ipNet(p).Mask, Xor: make([]byte, size)},
		compare(op, p.Masked().Addr().AsSlice()),
	}
}

// redirect changes the destination to this host: its loopback address in
// output, the receiving interface's in prerouting.
func redirect(port uint16) rule {
	return rule{&expr.Immediate{Register: 1, Data: bigEndian(port)}, &expr.Redir{RegisterProtoMin: 1}}
}

func accept() rule { return rule{&expr.Verdict{Kind: expr.VerdictAccept}} }
func drop() rule   { return rule{&expr.Verdict{Kind: expr.VerdictDrop}} }
func jump(chain string) rule {
	return rule{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}
