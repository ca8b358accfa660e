# lade: the one build file. `make help` lists what it can do.
#
# Objects go to $(O)/obj, programs and libraries to $(O). A second build with other flags uses another O:
# make O=build-asan SAN=address,undefined

PREFIX  ?= /usr/local
DESTDIR ?=
O       ?= build
VERSION := 0.1.0

CFLAGS  ?= -O2 -g
PKGS    := libzmq libczmq lmdb libcurl msgpack yaml-0.1 jansson libcrypto
san     := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)

override CFLAGS   += -std=c11 -fPIC -fvisibility=hidden -pthread -Wall -Wextra -Wformat=2 -Wstrict-prototypes \
                     -Wmissing-prototypes -Wshadow $(if $(WERROR),-Werror) $(san)
override CPPFLAGS += -I. -I$O/gen -D_GNU_SOURCE -DLADE_VERSION='"$(VERSION)"' -MMD -MP
override LDFLAGS  += -pthread $(san)

lib = $(shell pkg-config --libs $(1))

# Every room is a set of objects; a program is a main file and the rooms it may use (README, "Rooms").
src     = $(filter-out %_test.c %main.c,$(wildcard $(addsuffix /*.c,$(1))))
obj     = $(patsubst %.c,$O/obj/%.o,$(1))

common  := $(call obj,$(call src,common common/formats common/identify)) $O/obj/gen/families_data.o
worker  := $(call obj,$(call src,workers/worker))
liblade := $(call obj,$(call src,client))

programs := $O/lade $O/lade-broker $O/lade-download $O/lade-install $O/lade-gpu
libs     := $O/liblade.so.0 $O/liblade.a
tests    := $(patsubst %.c,$O/tests/%,$(wildcard broker/*_test.c workers/*/*_test.c client/*_test.c \
              client/cli/*_test.c common/*_test.c common/*/*_test.c))
benches  := $(patsubst tests/bench/%.c,$O/bench/%,$(wildcard tests/bench/*.c))
fuzzers  := $(patsubst tests/fuzz/%_fuzz.c,$O/fuzz/%_fuzz,$(wildcard tests/fuzz/*_fuzz.c))

all: $(programs) $(libs)

broker_libs   := $(call lib,libczmq libzmq lmdb msgpack yaml-0.1 jansson libcrypto)
download_libs := $(call lib,libczmq libzmq libcurl msgpack yaml-0.1 jansson libcrypto)
install_libs  := $(download_libs)
gpu_libs      := $(call lib,libczmq libzmq msgpack yaml-0.1 jansson libcrypto)
client_libs   := $(call lib,libczmq libzmq msgpack yaml-0.1 jansson libcrypto)

$O/lade-broker:   $(call obj,broker/main.c $(call src,broker)) $(common)
	$(CC) $(LDFLAGS) -o $@ $^ $(broker_libs) -lm
$O/lade-download: $(call obj,workers/download/main.c $(call src,workers/download)) $(worker) $(common)
	$(CC) $(LDFLAGS) -o $@ $^ $(download_libs) -lm
$O/lade-install:  $(call obj,workers/install/main.c $(call src,workers/install)) $(worker) $(common)
	$(CC) $(LDFLAGS) -o $@ $^ $(install_libs) -lm
$O/lade-gpu:      $(call obj,workers/gpu/main.c $(call src,workers/gpu)) $(worker) $(common)
	$(CC) $(LDFLAGS) -o $@ $^ $(gpu_libs) -lm
$O/lade:          $(call obj,client/cli/main.c $(call src,client/cli)) $(liblade) $(common)
	$(CC) $(LDFLAGS) -o $@ $^ $(client_libs) -lm

$O/liblade.so.0: $(liblade) $(common)
	$(CC) -shared -Wl,-soname,liblade.so.0 $(LDFLAGS) -o $@ $^ $(client_libs) -lm
	ln -sf liblade.so.0 $O/liblade.so
$O/liblade.a: $(liblade) $(common)
	rm -f $@ && ar rcs $@ $^

# The shipped families are compiled in, so that a bare binary identifies models.
$O/gen/families_data.c: scripts/embed $(wildcard configs/families/*.yaml)
	@mkdir -p $(@D)
	scripts/embed lade_families_data $(filter %.yaml,$^) > $@.tmp && mv $@.tmp $@
$O/obj/gen/families_data.o: $O/gen/families_data.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$O/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# A unit test links its own room, the rooms below it, and cmocka.
test_libs := $(call lib,libczmq libzmq lmdb libcurl msgpack yaml-0.1 jansson libcrypto cmocka) -lm
$O/tests/broker/%:           $O/obj/broker/%.o $(call obj,$(call src,broker)) $(common)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(test_libs)
$O/tests/workers/worker/%:   $O/obj/workers/worker/%.o $(worker) $(common)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(test_libs)
$O/tests/workers/download/%: $O/obj/workers/download/%.o $(call obj,$(call src,workers/download)) $(worker) $(common)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(test_libs)
$O/tests/workers/install/%:  $O/obj/workers/install/%.o $(call obj,$(call src,workers/install)) $(worker) $(common)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(test_libs)
$O/tests/workers/gpu/%:      $O/obj/workers/gpu/%.o $(call obj,$(call src,workers/gpu)) $(worker) $(common)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(test_libs)
$O/tests/client/cli/%:       $O/obj/client/cli/%.o $(call obj,$(call src,client/cli)) $(liblade) $(common)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(test_libs)
$O/tests/client/%:           $O/obj/client/%.o $(liblade) $(common)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(test_libs)
$O/tests/common/%:           $O/obj/common/%.o $(common)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(test_libs)

check: all $(tests)
	@scripts/unit-tests $(tests)

test-programs: $(tests)
list-tests:
	@echo $(tests)

bench: all $(benches)
$O/bench/%: $O/obj/tests/bench/%.o $(call obj,broker/store.c $(call src,workers/gpu)) $(liblade) $(worker) $(common)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(test_libs)

# libFuzzer programs; always clang, always address and undefined.
fuzz:
	@$(MAKE) --no-print-directory O=$O-fuzz CC=clang CFLAGS='-O1 -g' SAN=fuzzer-no-link,address,undefined fuzz-programs
fuzz-programs: $(fuzzers)
$O/fuzz/%_fuzz: $O/obj/tests/fuzz/%_fuzz.o $(call obj,$(call src,broker)) $(common)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(test_libs)

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include \
	  $(DESTDIR)$(PREFIX)/share/lade/families
	install -m 755 $(programs) $(DESTDIR)$(PREFIX)/bin
	install -m 755 $O/liblade.so.0 $(DESTDIR)$(PREFIX)/lib
	ln -sf liblade.so.0 $(DESTDIR)$(PREFIX)/lib/liblade.so
	install -m 644 $O/liblade.a $(DESTDIR)$(PREFIX)/lib
	sed -e '/#include "common\/error.h"/{r common/error.h' -e 'd}' client/lade.h > $(DESTDIR)$(PREFIX)/include/lade.h
	install -m 644 configs/lade.yaml $(DESTDIR)$(PREFIX)/share/lade
	install -m 644 configs/families/*.yaml $(DESTDIR)$(PREFIX)/share/lade/families
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' client/lade.pc.in \
	  > $(DESTDIR)$(PREFIX)/lib/pkgconfig/lade.pc

format:
	clang-format-14 -i $$(git ls-files '*.c' '*.h') || clang-format -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf $O $O-*

help:
	@echo 'make            programs and libraries into $O'
	@echo 'make check      unit tests (whole-system tests: scripts/test)'
	@echo 'make bench      benchmark programs into $O/bench (run them with tests/bench/*)'
	@echo 'make fuzz       libFuzzer programs into $O-fuzz/fuzz'
	@echo 'make install    PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)'
	@echo 'make format     clang-format 14 over the tree'
	@echo 'variables       O= CC= CFLAGS= WERROR=1 SAN=address,undefined|thread'

.PHONY: all check test-programs list-tests bench fuzz fuzz-programs install format clean help
.SECONDARY:
-include $(shell find $O -name '*.d' 2>/dev/null)
