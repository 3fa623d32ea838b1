//go:build amd64 && !purego

#include "textflag.h"
#include "go_asm.h"

// SHA-256 of sixteen messages at once, in AVX-512: each register holds one word of all of them. So the steps of FIPS 180-4,
// 6.2.2 are done one by one, as they are written there. It takes a processor about half as long per block as its SHA
// instructions do for two messages, but as long for one message as for sixteen.
//
//	Z0 to Z7    a to h
//	Z8 to Z15   temporary
//	Z16 to Z31  sixteen words of the schedule, W[t] in Z(16 + t mod 16)

// Turns each word around: a block is big-endian.
DATA swap16<>+0x00(SB)/8, $0x0405060700010203
DATA swap16<>+0x08(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap16<>(SB), RODATA|NOPTR, $16

DATA step<>+0x00(SB)/8, $64
GLOBL step<>(SB), RODATA|NOPTR, $8

// LOAD loads the four quarters of the blocks of messages r, r+4, r+8 and r+12, whose addresses are on the stack: one
// register for each quarter.
#define LOAD(r, x0, z0, x1, z1, x2, z2, x3, z3) \
	MOVQ         (8*(r+0))(SP), R8;     \
	MOVQ         (8*(r+4))(SP), R9;     \
	MOVQ         (8*(r+8))(SP), R10;    \
	MOVQ         (8*(r+12))(SP), R11;   \
	VMOVDQU32    (R8), x0;              \
	VINSERTI32X4 $1, (R9), z0, z0;      \
	VINSERTI32X4 $2, (R10), z0, z0;     \
	VINSERTI32X4 $3, (R11), z0, z0;     \
	VMOVDQU32    16(R8), x1;            \
	VINSERTI32X4 $1, 16(R9), z1, z1;    \
	VINSERTI32X4 $2, 16(R10), z1, z1;   \
	VINSERTI32X4 $3, 16(R11), z1, z1;   \
	VMOVDQU32    32(R8), x2;            \
	VINSERTI32X4 $1, 32(R9), z2, z2;    \
	VINSERTI32X4 $2, 32(R10), z2, z2;   \
	VINSERTI32X4 $3, 32(R11), z2, z2;   \
	VMOVDQU32    48(R8), x3;            \
	VINSERTI32X4 $1, 48(R9), z3, z3;    \
	VINSERTI32X4 $2, 48(R10), z3, z3;   \
	VINSERTI32X4 $3, 48(R11), z3, z3

// TURN takes a quarter of all blocks, as LOAD has left it in four registers, and makes a word of all blocks out of each.
#define TURN(z0, z1, z2, z3) \
	VPSHUFB     Z8, z0, z0;     \
	VPSHUFB     Z8, z1, z1;     \
	VPSHUFB     Z8, z2, z2;     \
	VPSHUFB     Z8, z3, z3;     \
	VPUNPCKLDQ  z1, z0, Z9;     \
	VPUNPCKHDQ  z1, z0, Z10;    \
	VPUNPCKLDQ  z3, z2, Z11;    \
	VPUNPCKHDQ  z3, z2, Z12;    \
	VPUNPCKLQDQ Z11, Z9, z0;    \
	VPUNPCKHQDQ Z11, Z9, z1;    \
	VPUNPCKLQDQ Z12, Z10, z2;   \
	VPUNPCKHQDQ Z12, Z10, z3

// ROUND does round t, where K[t] is at (4*i)(AX) and W[t] in w. Afterwards h holds what the next round calls a, and d what
// it calls e; all others have moved on by a name. The truth tables: 0x96 is x⊕y⊕z, 0xca is Ch, 0xe8 is Maj.
#define ROUND(a, b, c, d, e, f, g, h, w, i) \
	VPADDD.BCST (4*i)(AX), w, Z8;        \
	VPADDD      Z8, h, h;                \
	VPRORD      $6, e, Z9;               \
	VPRORD      $11, e, Z10;             \
	VPRORD      $25, e, Z11;             \
	VPTERNLOGD  $0x96, Z10, Z11, Z9;     \
	VMOVDQA32   e, Z12;                  \
	VPTERNLOGD  $0xca, g, f, Z12;        \
	VPADDD      Z9, h, h;                \
	VPADDD      Z12, h, h;               \
	VPADDD      h, d, d;                 \
	VPRORD      $2, a, Z9;               \
	VPRORD      $13, a, Z10;             \
	VPRORD      $22, a, Z11;             \
	VPTERNLOGD  $0x96, Z10, Z11, Z9;     \
	VMOVDQA32   a, Z12;                  \
	VPTERNLOGD  $0xe8, c, b, Z12;        \
	VPADDD      Z9, h, h;                \
	VPADDD      Z12, h, h

// WORD makes W[t] out of W[t-16] in w0, in its place, W[t-15] in w1, W[t-7] in w9 and W[t-2] in w14.
#define WORD(w0, w1, w9, w14) \
	VPRORD     $7, w1, Z13;              \
	VPRORD     $18, w1, Z14;             \
	VPSRLD     $3, w1, Z15;              \
	VPTERNLOGD $0x96, Z14, Z15, Z13;     \
	VPADDD     w9, w0, w0;               \
	VPADDD     Z13, w0, w0;              \
	VPRORD     $17, w14, Z13;            \
	VPRORD     $19, w14, Z14;            \
	VPSRLD     $10, w14, Z15;            \
	VPTERNLOGD $0x96, Z14, Z15, Z13;     \
	VPADDD     Z13, w0, w0

// func xgetbv() uint32
TEXT ·xgetbv(SB), NOSPLIT, $0-4
	XORL CX, CX
	XGETBV
	MOVL AX, ret+0(FP)
	RET

// func blocks16(w *wide) (over uint32)
TEXT ·blocks16(SB), NOSPLIT, $128-12
	MOVQ w+0(FP), DI

	// CX: the least of left.
	VMOVDQU32     wide_left(DI), Z8
	VEXTRACTI64X4 $1, Z8, Y9
	VPMINSD       Y9, Y8, Y9
	VEXTRACTI128  $1, Y9, X10
	VPMINSD       X10, X9, X9
	VPSHUFD       $0x4e, X9, X10
	VPMINSD       X10, X9, X9
	VPSHUFD       $0xb1, X9, X10
	VPMINSD       X10, X9, X9
	VMOVD         X9, CX

	// What is left after that many, and of which nothing is.
	VPBROADCASTD X9, Z9
	VPSUBD       Z9, Z8, Z8
	VMOVDQU32    Z8, wide_left(DI)
	VPTESTNMD    Z8, Z8, K1
	KMOVW        K1, AX
	MOVL         AX, over+8(FP)

	// The first blocks' addresses go on the stack, and off moves on.
	MOVQ         CX, BX
	SHLQ         $6, BX
	VPBROADCASTQ BX, Z10
	VMOVDQU64    wide_off(DI), Z8
	VMOVDQU64    (wide_off+64)(DI), Z9
	VPADDQ       wide_base(DI), Z8, Z11
	VPADDQ       (wide_base+64)(DI), Z9, Z12
	VMOVDQU64    Z11, 0(SP)
	VMOVDQU64    Z12, 64(SP)
	VPADDQ       Z10, Z8, Z8
	VPADDQ       Z10, Z9, Z9
	VMOVDQU64    Z8, wide_off(DI)
	VMOVDQU64    Z9, (wide_off+64)(DI)

	VMOVDQU32     0(DI), Z0
	VMOVDQU32     64(DI), Z1
	VMOVDQU32     128(DI), Z2
	VMOVDQU32     192(DI), Z3
	VMOVDQU32     256(DI), Z4
	VMOVDQU32     320(DI), Z5
	VMOVDQU32     384(DI), Z6
	VMOVDQU32     448(DI), Z7

block:
	LOAD(0, X16, Z16, X20, Z20, X24, Z24, X28, Z28)
	LOAD(1, X17, Z17, X21, Z21, X25, Z25, X29, Z29)
	LOAD(2, X18, Z18, X22, Z22, X26, Z26, X30, Z30)
	LOAD(3, X19, Z19, X23, Z23, X27, Z27, X31, Z31)
	VBROADCASTI32X4 swap16<>(SB), Z8
	TURN(Z16, Z17, Z18, Z19)
	TURN(Z20, Z21, Z22, Z23)
	TURN(Z24, Z25, Z26, Z27)
	TURN(Z28, Z29, Z30, Z31)
	LEAQ ·k(SB), AX
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 0)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 1)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 2)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 3)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 4)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 5)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 6)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 7)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z24, 8)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z25, 9)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z26, 10)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z27, 11)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z28, 12)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z29, 13)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z30, 14)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z31, 15)

	MOVQ $3, BX

sixteen:
	ADDQ $64, AX
	WORD(Z16, Z17, Z25, Z30)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 0)
	WORD(Z17, Z18, Z26, Z31)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 1)
	WORD(Z18, Z19, Z27, Z16)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 2)
	WORD(Z19, Z20, Z28, Z17)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 3)
	WORD(Z20, Z21, Z29, Z18)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 4)
	WORD(Z21, Z22, Z30, Z19)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 5)
	WORD(Z22, Z23, Z31, Z20)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 6)
	WORD(Z23, Z24, Z16, Z21)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 7)
	WORD(Z24, Z25, Z17, Z22)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z24, 8)
	WORD(Z25, Z26, Z18, Z23)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z25, 9)
	WORD(Z26, Z27, Z19, Z24)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z26, 10)
	WORD(Z27, Z28, Z20, Z25)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z27, 11)
	WORD(Z28, Z29, Z21, Z26)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z28, 12)
	WORD(Z29, Z30, Z22, Z27)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z29, 13)
	WORD(Z30, Z31, Z23, Z28)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z30, 14)
	WORD(Z31, Z16, Z24, Z29)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z31, 15)
	DECQ BX
	JNZ  sixteen

	VPADDD    0(DI), Z0, Z0
	VMOVDQU32 Z0, 0(DI)
	VPADDD    64(DI), Z1, Z1
	VMOVDQU32 Z1, 64(DI)
	VPADDD    128(DI), Z2, Z2
	VMOVDQU32 Z2, 128(DI)
	VPADDD    192(DI), Z3, Z3
	VMOVDQU32 Z3, 192(DI)
	VPADDD    256(DI), Z4, Z4
	VMOVDQU32 Z4, 256(DI)
	VPADDD    320(DI), Z5, Z5
	VMOVDQU32 Z5, 320(DI)
	VPADDD    384(DI), Z6, Z6
	VMOVDQU32 Z6, 384(DI)
	VPADDD    448(DI), Z7, Z7
	VMOVDQU32 Z7, 448(DI)
	DECQ         CX
	JZ           done
	VPBROADCASTQ step<>(SB), Z8
	VPADDQ       0(SP), Z8, Z9
	VPADDQ       64(SP), Z8, Z10
	VMOVDQU64    Z9, 0(SP)
	VMOVDQU64    Z10, 64(SP)
	JMP          block

done:
	VZEROUPPER
	RET
