// How a load worker hands descriptors to the keeper, which outlives it: a SOCK_SEQPACKET socket in
// the data folder, one packet a message, texts.
//
//   hello NAME         who we are; what a lost connection of that name left is dropped
//   put ID\nFACTS      with one descriptor: keep both, in place of what ID was
//   drop ID
//   take               answered by "ID\nFACTS" with its descriptor for everything whose owner's
//                      connection is gone, which is ours from now on, then by "end"
//   bye                drop everything of ours, what was taken included
//
// The keeper understands neither facts nor descriptors. What a connection put stays for load.keep_s
// after it is gone, unless another takes it. Packets are taken in order, those of a process that
// was killed too.
#ifndef LADE_KEEP_H
#define LADE_KEEP_H

#define LADE_KEEP_SOCKET "keeper.sock"

enum {
    LADE_KEEP_MAX_PACKET = 64 << 10,
    LADE_KEEP_MAX_ID = 200,
    LADE_KEEP_MAX_NAME = 300,
};

#endif
