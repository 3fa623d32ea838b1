//go:build amd64 && !purego

#include "textflag.h"

// SHA-256 with the processor's own instructions, for one message and for two at once.
//
// The function of one block is that of FIPS 180-4, 6.2.2: 64 rounds over the working variables a…h, and the schedule of
// 64 words W[t], of which the first 16 are the block itself. The instructions do four steps of it at a time:
//
//	SHA256RNDS2  two rounds; it takes W[t]+K[t] and W[t+1]+K[t+1] from the lower half of X0
//	SHA256MSG1   W[t-16] + σ0(W[t-15]) for four t
//	SHA256MSG2   adds σ1(W[t-2]) for four t, of which the upper two need the lower two's results
//
// They want a…h in two registers, from the lowest word up: (f, e, b, a) and (h, g, d, c). That is how type state keeps
// them, so that nothing has to be rearranged between calls.
//
// The rounds of a message depend on each other: on most processors each SHA256RNDS2 waits four cycles for the one before, but
// one could be started every other cycle. So two messages that have nothing to do with each other take hardly longer than
// one, if their instructions lie close enough together; groups of four rounds in turn are.

// K[t], FIPS 180-4, 4.2.2.
DATA ·k+0x00(SB)/4, $0x428a2f98
DATA ·k+0x04(SB)/4, $0x71374491
DATA ·k+0x08(SB)/4, $0xb5c0fbcf
DATA ·k+0x0c(SB)/4, $0xe9b5dba5
DATA ·k+0x10(SB)/4, $0x3956c25b
DATA ·k+0x14(SB)/4, $0x59f111f1
DATA ·k+0x18(SB)/4, $0x923f82a4
DATA ·k+0x1c(SB)/4, $0xab1c5ed5
DATA ·k+0x20(SB)/4, $0xd807aa98
DATA ·k+0x24(SB)/4, $0x12835b01
DATA ·k+0x28(SB)/4, $0x243185be
DATA ·k+0x2c(SB)/4, $0x550c7dc3
DATA ·k+0x30(SB)/4, $0x72be5d74
DATA ·k+0x34(SB)/4, $0x80deb1fe
DATA ·k+0x38(SB)/4, $0x9bdc06a7
DATA ·k+0x3c(SB)/4, $0xc19bf174
DATA ·k+0x40(SB)/4, $0xe49b69c1
DATA ·k+0x44(SB)/4, $0xefbe4786
DATA ·k+0x48(SB)/4, $0x0fc19dc6
DATA ·k+0x4c(SB)/4, $0x240ca1cc
DATA ·k+0x50(SB)/4, $0x2de92c6f
DATA ·k+0x54(SB)/4, $0x4a7484aa
DATA ·k+0x58(SB)/4, $0x5cb0a9dc
DATA ·k+0x5c(SB)/4, $0x76f988da
DATA ·k+0x60(SB)/4, $0x983e5152
DATA ·k+0x64(SB)/4, $0xa831c66d
DATA ·k+0x68(SB)/4, $0xb00327c8
DATA ·k+0x6c(SB)/4, $0xbf597fc7
DATA ·k+0x70(SB)/4, $0xc6e00bf3
DATA ·k+0x74(SB)/4, $0xd5a79147
DATA ·k+0x78(SB)/4, $0x06ca6351
DATA ·k+0x7c(SB)/4, $0x14292967
DATA ·k+0x80(SB)/4, $0x27b70a85
DATA ·k+0x84(SB)/4, $0x2e1b2138
DATA ·k+0x88(SB)/4, $0x4d2c6dfc
DATA ·k+0x8c(SB)/4, $0x53380d13
DATA ·k+0x90(SB)/4, $0x650a7354
DATA ·k+0x94(SB)/4, $0x766a0abb
DATA ·k+0x98(SB)/4, $0x81c2c92e
DATA ·k+0x9c(SB)/4, $0x92722c85
DATA ·k+0xa0(SB)/4, $0xa2bfe8a1
DATA ·k+0xa4(SB)/4, $0xa81a664b
DATA ·k+0xa8(SB)/4, $0xc24b8b70
DATA ·k+0xac(SB)/4, $0xc76c51a3
DATA ·k+0xb0(SB)/4, $0xd192e819
DATA ·k+0xb4(SB)/4, $0xd6990624
DATA ·k+0xb8(SB)/4, $0xf40e3585
DATA ·k+0xbc(SB)/4, $0x106aa070
DATA ·k+0xc0(SB)/4, $0x19a4c116
DATA ·k+0xc4(SB)/4, $0x1e376c08
DATA ·k+0xc8(SB)/4, $0x2748774c
DATA ·k+0xcc(SB)/4, $0x34b0bcb5
DATA ·k+0xd0(SB)/4, $0x391c0cb3
DATA ·k+0xd4(SB)/4, $0x4ed8aa4a
DATA ·k+0xd8(SB)/4, $0x5b9cca4f
DATA ·k+0xdc(SB)/4, $0x682e6ff3
DATA ·k+0xe0(SB)/4, $0x748f82ee
DATA ·k+0xe4(SB)/4, $0x78a5636f
DATA ·k+0xe8(SB)/4, $0x84c87814
DATA ·k+0xec(SB)/4, $0x8cc70208
DATA ·k+0xf0(SB)/4, $0x90befffa
DATA ·k+0xf4(SB)/4, $0xa4506ceb
DATA ·k+0xf8(SB)/4, $0xbef9a3f7
DATA ·k+0xfc(SB)/4, $0xc67178f2
GLOBL ·k(SB), RODATA|NOPTR, $256

// Turns each of four words around: a block is big-endian.
DATA swap<>+0x00(SB)/8, $0x0405060700010203
DATA swap<>+0x08(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), RODATA|NOPTR, $16

// WORDS loads words 4n to 4n+3 of the block at p.
#define WORDS(n, p, m) \
	MOVOU  (n*16)(p), m; \
	PSHUFB X15, m

// ROUNDS does rounds 4n to 4n+3, whose words are in m.
#define ROUNDS(n, m, feba, hgdc) \
	MOVO        m, X0;            \
	PADDD       (n*16)(AX), X0;   \
	SHA256RNDS2 X0, feba, hgdc;   \
	PSHUFD      $0x0e, X0, X0;    \
	SHA256RNDS2 X0, hgdc, feba

// SCHEDULE makes the four words after those in m3, in the place of m0, the oldest of sixteen. MSG1 has been applied to m0
// as soon as m1 was there, and is now to m2. PALIGNR picks the words W[t-7], which lie across m2 and m3.
#define SCHEDULE(m0, m1, m2, m3, tmp) \
	MOVO       m3, tmp;     \
	PALIGNR    $4, m2, tmp; \
	PADDD      tmp, m0;     \
	SHA256MSG2 m3, m0;      \
	SHA256MSG1 m3, m2

// ADDUP adds the variables after the rounds to those before them, and keeps the sum in memory too, stride bytes further.
#define ADDUP(p, stride, feba, hgdc) \
	MOVOU (p), X0;                \
	PADDD X0, feba;               \
	MOVOU feba, (p)(stride*1);    \
	MOVOU 16(p), X0;              \
	PADDD X0, hgdc;               \
	MOVOU hgdc, 16(p)(stride*1);  \
	ADDQ  stride, p

// A is a step of the first message: four rounds and the words for the four that are sixteen rounds later. It has X1 and X2
// for its variables and X3 to X6 for words.
#define A(n, m0, m1, m2, m3) \
	ROUNDS(n, m3, X1, X2)    \
	SCHEDULE(m0, m1, m2, m3, X7)

// B is a step of the second message, in X8 to X13.
#define B(n, m0, m1, m2, m3) \
	ROUNDS(n, m3, X8, X9)    \
	SCHEDULE(m0, m1, m2, m3, X14)

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	MOVL DX, d+20(FP)
	RET

// func blocks1(s *state, stride int, p *byte, n int)
TEXT ·blocks1(SB), NOSPLIT, $0-32
	MOVQ  s+0(FP), DI
	MOVQ  stride+8(FP), R10
	MOVQ  p+16(FP), SI
	MOVQ  n+24(FP), CX
	LEAQ  ·k(SB), AX
	MOVOU swap<>(SB), X15
	MOVOU (DI), X1
	MOVOU 16(DI), X2

loop:
	WORDS(0, SI, X3)
	ROUNDS(0, X3, X1, X2)
	WORDS(1, SI, X4)
	ROUNDS(1, X4, X1, X2)
	SHA256MSG1 X4, X3
	WORDS(2, SI, X5)
	ROUNDS(2, X5, X1, X2)
	SHA256MSG1 X5, X4
	WORDS(3, SI, X6)
	A(3, X3, X4, X5, X6)
	A(4, X4, X5, X6, X3)
	A(5, X5, X6, X3, X4)
	A(6, X6, X3, X4, X5)
	A(7, X3, X4, X5, X6)
	A(8, X4, X5, X6, X3)
	A(9, X5, X6, X3, X4)
	A(10, X6, X3, X4, X5)
	A(11, X3, X4, X5, X6)
	A(12, X4, X5, X6, X3)
	A(13, X5, X6, X3, X4)
	A(14, X6, X3, X4, X5)
	ROUNDS(15, X6, X1, X2)
	ADDUP(DI, R10, X1, X2)
	ADDQ $64, SI
	DECQ CX
	JNZ  loop
	RET

// func blocks2(s, t *state, sstride, tstride int, p, q *byte, n int)
TEXT ·blocks2(SB), NOSPLIT, $0-56
	MOVQ  s+0(FP), DI
	MOVQ  t+8(FP), R8
	MOVQ  sstride+16(FP), R10
	MOVQ  tstride+24(FP), R11
	MOVQ  p+32(FP), SI
	MOVQ  q+40(FP), R9
	MOVQ  n+48(FP), CX
	LEAQ  ·k(SB), AX
	MOVOU swap<>(SB), X15
	MOVOU (DI), X1
	MOVOU 16(DI), X2
	MOVOU (R8), X8
	MOVOU 16(R8), X9

loop:
	WORDS(0, SI, X3)
	ROUNDS(0, X3, X1, X2)
	WORDS(0, R9, X10)
	ROUNDS(0, X10, X8, X9)
	WORDS(1, SI, X4)
	ROUNDS(1, X4, X1, X2)
	SHA256MSG1 X4, X3
	WORDS(1, R9, X11)
	ROUNDS(1, X11, X8, X9)
	SHA256MSG1 X11, X10
	WORDS(2, SI, X5)
	ROUNDS(2, X5, X1, X2)
	SHA256MSG1 X5, X4
	WORDS(2, R9, X12)
	ROUNDS(2, X12, X8, X9)
	SHA256MSG1 X12, X11
	WORDS(3, SI, X6)
	WORDS(3, R9, X13)
	A(3, X3, X4, X5, X6)
	B(3, X10, X11, X12, X13)
	A(4, X4, X5, X6, X3)
	B(4, X11, X12, X13, X10)
	A(5, X5, X6, X3, X4)
	B(5, X12, X13, X10, X11)
	A(6, X6, X3, X4, X5)
	B(6, X13, X10, X11, X12)
	A(7, X3, X4, X5, X6)
	B(7, X10, X11, X12, X13)
	A(8, X4, X5, X6, X3)
	B(8, X11, X12, X13, X10)
	A(9, X5, X6, X3, X4)
	B(9, X12, X13, X10, X11)
	A(10, X6, X3, X4, X5)
	B(10, X13, X10, X11, X12)
	A(11, X3, X4, X5, X6)
	B(11, X10, X11, X12, X13)
	A(12, X4, X5, X6, X3)
	B(12, X11, X12, X13, X10)
	A(13, X5, X6, X3, X4)
	B(13, X12, X13, X10, X11)
	A(14, X6, X3, X4, X5)
	B(14, X13, X10, X11, X12)
	ROUNDS(15, X6, X1, X2)
	ROUNDS(15, X13, X8, X9)
	ADDUP(DI, R10, X1, X2)
	ADDUP(R8, R11, X8, X9)
	ADDQ $64, SI
	ADDQ $64, R9
	DECQ CX
	JNZ  loop
	RET
