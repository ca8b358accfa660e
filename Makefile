# lade: the one build file. `make help` lists what it can do.
#
# POINTS=1 is a build that dies where the tests say (common/point.h).
#
# Objects go to $(O)/obj, programs and libraries to $(O). A second build with other flags uses another O:
# make O=build-asan SAN=address,undefined

PREFIX  ?= /usr/local
DESTDIR ?=
PYTHONDIR ?= $(PREFIX)/lib/python3/dist-packages
O       ?= build
VERSION := 0.1.0

CFLAGS  ?= -O2 -g
san     := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all)

override CFLAGS   += -std=c11 -fPIC -fvisibility=hidden -pthread -Wall -Wextra -Wformat=2 -Wstrict-prototypes \
                     -Wmissing-prototypes -Wshadow $(if $(WERROR),-Werror) $(san)
override CPPFLAGS += -I. -I$O/gen $(if $(POINTS),-DLADE_POINTS) -D_GNU_SOURCE -DLADE_VERSION='"$(VERSION)"' -MMD -MP
override LDFLAGS  += -pthread $(san)

lib = $(shell pkg-config --libs $(1))

# Every room is a set of objects; a program is a main file and the rooms it may use (README, "Rooms").
src     = $(filter-out %_test.c %main.c,$(wildcard $(addsuffix /*.c,$(1))))
obj     = $(patsubst %.c,$O/obj/%.o,$(1))

common  := $(call obj,$(call src,common common/formats common/identify)) $O/obj/gen/families_data.o
worker  := $(call obj,$(call src,workers/worker))
liblade := $(call obj,$(call src,client))
convert := $O/obj/gen/convert_data.o

programs := $O/lade $O/lade-broker $O/lade-download $O/lade-install $O/lade-gpu $O/lade-keeper
libs     := $O/liblade.so.0 $O/liblade.a
tests    := $(patsubst %.c,$O/tests/%,$(wildcard broker/*_test.c workers/*/*_test.c client/*_test.c \
              client/cli/*_test.c common/*_test.c common/*/*_test.c))
benches  := $(patsubst tests/bench/%.c,$O/bench/%,$(wildcard tests/bench/*.c))
fuzzers  := $(patsubst tests/fuzz/%_fuzz.c,$O/fuzz/%_fuzz,$(wildcard tests/fuzz/*_fuzz.c))

# CUDA=yes|no; by itself: yes where nvcc is found. The plug-in is opened at run time, nothing else needs the toolkit.
NVCC    ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc))
CUDA    ?= $(if $(SAN),no,$(if $(NVCC),yes,no))
plugins := $(if $(filter yes,$(CUDA)),$O/lade-gpu-cuda.so)

all: $(programs) $(libs) $(plugins)

# `make V=1` shows the commands, otherwise only what is made.
Q    := $(if $(V),,@)
say   = $(if $(V),,@echo "  $(1) $@")
folder = @mkdir -p $(@D)
base := libczmq libzmq msgpack yaml-0.1 jansson libcrypto zlib
link  = $(Q)$(CC) $(LDFLAGS) -o $@ $(filter %.o,$^)
test_libs = $(call lib,$(base) lmdb libcurl cmocka) -lm

# The unit tests of a room link that room, the rooms it may use, and cmocka.
#   $(call room_tests,ROOM,OBJECTS)
define room_tests
$O/tests/$(strip $(1))/%: $O/obj/$(strip $(1))/%.o $(2) $(common)
	$$(folder)
	$$(call say,LINK)
	$$(link) $$(test_libs)
endef

# A program is its room, the rooms it uses, and libraries beyond the base.
#   $(call program,NAME,ROOM,OBJECTS OF OTHER ROOMS,PACKAGES)
define program
$O/$(strip $(1)): $(call obj,$(strip $(2))/main.c) $(call obj,$(call src,$(strip $(2)))) $(3) $(common)
	$$(call say,LINK)
	$$(link) $$(call lib,$$(base) $(4)) -lm
$(call room_tests,$(2),$(call obj,$(call src,$(strip $(2)))) $(3))
endef

#                        name            room               other rooms  packages
$(eval $(call program,   lade-broker,    broker,            ,            lmdb))
$(eval $(call program,   lade-download,  workers/download,  $(worker),   libcurl))
$(eval $(call program,   lade-install,   workers/install,   $(worker) $(convert), libcurl))
$(eval $(call program,   lade-gpu,       workers/gpu,       $(worker),   ))
$(eval $(call program,   lade-keeper,    workers/keeper,    ,            ))
$(eval $(call program,   lade,           client/cli,        $(liblade),  ))
$(eval $(call room_tests,workers/worker, $(worker)))
$(eval $(call room_tests,client,         $(liblade)))
$(eval $(call room_tests,common,         ))

$O/liblade.so.0: $(liblade) $(common)
	$(call say,LINK)
	$(link) -shared -Wl,-soname,liblade.so.0 $(call lib,$(base)) -lm
	$(Q)ln -sf liblade.so.0 $O/liblade.so
$O/liblade.a: $(liblade) $(common)
	$(call say,AR  )
	$(Q)rm -f $@ && ar rcs $@ $^

# The kernels are for what is in use, and as PTX for what comes.
CUDA_ARCH ?= -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90]
cuda_include := $(abspath $(dir $(NVCC))../include)
cuda_objects := $(call obj,$(wildcard workers/gpu/cuda/*.c)) $(patsubst %.cu,$O/obj/%.o,$(wildcard workers/gpu/cuda/*.cu)) \
                $(call obj,workers/gpu/move.c common/error.c common/formats/dtype.c)
$O/lade-gpu-cuda.so: $(cuda_objects)
	$(call say,NVCC)
	$(Q)$(NVCC) -shared -cudart static -Xlinker -Bsymbolic,--exclude-libs=ALL -o $@ $^ -ldl -lpthread
$O/obj/workers/gpu/cuda/%.o: workers/gpu/cuda/%.c
	$(folder)
	$(call say,CC  )
	$(Q)$(CC) $(CPPFLAGS) -isystem $(cuda_include) $(CFLAGS) -c -o $@ $<
$O/obj/workers/gpu/cuda/%.o: workers/gpu/cuda/%.cu
	$(folder)
	$(call say,NVCC)
	$(Q)$(NVCC) -std=c++17 -O2 -I. -Xcompiler -fPIC,-fvisibility=hidden $(CUDA_ARCH) -MMD -MP -c -o $@ $<

# What runs on a machine with a GPU, the toolkit and gcc alone (scripts/gpu-check).
gpu_parts    := $(call obj,workers/gpu/stream.c workers/gpu/move.c common/error.c common/plugin.c common/thread.c \
                  common/formats/dtype.c)
gpu_programs := $O/gpu/gpu_check $(if $(filter yes,$(CUDA)),$O/gpu/h2d_floor $O/lade-gpu-cuda.so)
gpu-programs: $(gpu_programs)
$O/gpu/gpu_check: $O/obj/tests/gpu/gpu_check.o $(gpu_parts)
	$(folder)
	$(call say,LINK)
	$(link) -ldl -lm
$O/gpu/h2d_floor: tests/gpu/h2d_floor.cu
	$(folder)
	$(call say,NVCC)
	$(Q)$(NVCC) -std=c++17 -O2 $(CUDA_ARCH) -o $@ $<
gpu-check:
	@O=$O scripts/gpu-check $(GPU_CHECK)

# The shipped families and conversions are compiled in, so that a bare binary knows models.
$O/gen/families_data.c: scripts/embed $(wildcard configs/families/*.yaml)
$O/gen/convert_data.c: scripts/embed $(wildcard configs/convert/*.yaml)
$O/gen/%_data.c:
	$(folder)
	$(call say,GEN )
	$(Q)scripts/embed lade_$*_data $(filter %.yaml,$^) > $@.tmp && mv $@.tmp $@
$O/obj/gen/%_data.o: $O/gen/%_data.c
	$(folder)
	$(call say,CC  )
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$O/obj/%.o: %.c
	$(folder)
	$(call say,CC  )
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

# Plug-ins for tests: tests/plugins/NAME_cuda.c as $O/tests/plugins/NAME/lade-gpu-cuda.so.
test_plugins := $(patsubst tests/plugins/%_cuda.c,$O/tests/plugins/%/lade-gpu-cuda.so,$(wildcard tests/plugins/*_cuda.c))
$O/tests/plugins/%/lade-gpu-cuda.so: $O/obj/tests/plugins/%_cuda.o \
        $(call obj,$(addprefix workers/gpu/,backend_host.c memory.c move.c transform.c ggml.c)) $O/liblade.a
	$(folder)
	$(call say,LINK)
	$(link) $O/liblade.a -shared -Wl,-Bsymbolic $(call lib,$(base)) -lm

check: all $(tests) $(test_plugins)
	@scripts/unit-tests $(tests)

test-programs: $(tests) test-plugins
test-plugins: $(test_plugins)
list-tests:
	@echo $(tests)

bench: all $(benches)
$O/bench/%: $O/obj/tests/bench/%.o $(call obj,$(call src,broker workers/gpu)) $(liblade) $(worker) $(common)
	$(folder)
	$(call say,LINK)
	$(link) $(test_libs) $(shell pkg-config --silence-errors --libs sqlite3)
$O/bench/convert_bench: $O/obj/tests/bench/convert_bench.o $(call obj,$(call src,workers/install)) $(convert) $(worker) $(common)
	$(folder)
	$(call say,LINK)
	$(link) $(test_libs)
# What is no lade: a link that loses packets, a stopwatch, libcurl alone.
$(addprefix $O/bench/,relay clocked curl_floor): $O/bench/%: $O/obj/tests/bench/%.o
	$(folder)
	$(call say,LINK)
	$(link) $(call lib,libcurl)

# libFuzzer programs; always clang, always address and undefined.
fuzz:
	@$(MAKE) --no-print-directory O=$O-fuzz CC=clang CFLAGS='-O1 -g' SAN=fuzzer-no-link,address,undefined fuzz-programs
fuzz-programs: $(fuzzers)
$O/fuzz/%_fuzz: $O/obj/tests/fuzz/%_fuzz.o $(call obj,$(call src,broker)) $(common)
	$(folder)
	$(call say,LINK)
	$(link) -fsanitize=fuzzer $(test_libs)

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include \
	  $(DESTDIR)$(PREFIX)/share/lade/families $(DESTDIR)$(PREFIX)/share/lade/convert
	install -m 755 $(programs) $(DESTDIR)$(PREFIX)/bin
	install -m 755 $O/liblade.so.0 $(DESTDIR)$(PREFIX)/lib
	ln -sf liblade.so.0 $(DESTDIR)$(PREFIX)/lib/liblade.so
	install -m 644 $O/liblade.a $(DESTDIR)$(PREFIX)/lib
	$(if $(plugins),install -d $(DESTDIR)$(PREFIX)/lib/lade && install -m 755 $(plugins) $(DESTDIR)$(PREFIX)/lib/lade)
	sed -e '/#include "common\/error.h"/{r common/error.h' -e 'd}' client/lade.h > $(DESTDIR)$(PREFIX)/include/lade.h
	install -D -m 644 client/python/lade.py $(DESTDIR)$(PYTHONDIR)/lade.py
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/lade/examples client/examples/*
	install -m 644 configs/lade.yaml $(DESTDIR)$(PREFIX)/share/lade
	install -m 644 configs/families/*.yaml $(DESTDIR)$(PREFIX)/share/lade/families
	install -m 644 configs/convert/*.yaml $(DESTDIR)$(PREFIX)/share/lade/convert
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
	@echo 'make gpu-check  the loader on a GPU: conformance, speed, sharing (needs the CUDA toolkit and gcc alone)'
	@echo 'make fuzz       libFuzzer programs into $O-fuzz/fuzz'
	@echo 'make install    PREFIX=$(PREFIX) PYTHONDIR=$(PYTHONDIR) DESTDIR=$(DESTDIR)'
	@echo 'make format     clang-format 14 over the tree'
	@echo 'variables       CUDA=yes|no (plug-in for CUDA; by itself where nvcc is found) O= CC= CFLAGS= WERROR=1 SAN=address,undefined|thread V=1'

.PHONY: all check test-programs test-plugins list-tests gpu-programs gpu-check bench fuzz fuzz-programs install format clean help
.SECONDARY:
-include $(shell find $O -name '*.d' 2>/dev/null)
