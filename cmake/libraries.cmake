# The distribution's libraries (DESIGN.md's floors; deploy/setup installs them).
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(EVENT REQUIRED IMPORTED_TARGET libevent>=2.1.12 libevent_pthreads>=2.1.12)
pkg_check_modules(RDKAFKA REQUIRED IMPORTED_TARGET rdkafka>=2.0.2)
pkg_check_modules(PROTOBUF_C REQUIRED IMPORTED_TARGET libprotobuf-c>=1.4.1)
pkg_check_modules(CODECS REQUIRED IMPORTED_TARGET liblz4 libzstd snappy zlib)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.13)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET libssl>=3 libcrypto>=3)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8>=10.40)
pkg_check_modules(ISAL REQUIRED IMPORTED_TARGET libisal>=2.30)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl>=7.85) # its headers: the library is opened when it is needed
find_library(LMDB_LIBRARY lmdb REQUIRED)
add_library(sundog_libraries INTERFACE)
target_link_libraries(sundog_libraries INTERFACE PkgConfig::EVENT PkgConfig::RDKAFKA PkgConfig::PROTOBUF_C
  PkgConfig::CODECS PkgConfig::JANSSON PkgConfig::OPENSSL PkgConfig::ISAL PkgConfig::PCRE2 ${LMDB_LIBRARY} Threads::Threads m ${CMAKE_DL_LIBS})
target_include_directories(sundog_libraries INTERFACE ${CURL_INCLUDE_DIRS})
